"""A worker: builds nodes that a driver names, in a process of its own, for the driver's store.

What it hands on to later nodes it writes into the driver's folder, where other workers read it, and
keeps in its own memory too, as far as there is room, for nodes that it builds itself.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.errors import StageFailed, UserError
from pipeline.graph import Graph, Node
from pipeline.import_ahead import importing
from pipeline.machine.signature import signature
from pipeline.planning.plan import Plan
from pipeline.runner.commits import Commits
from pipeline.runner.forecast import reserved
from pipeline.runner.held import HeldDraft, HeldResult, Holdings, in_files
from pipeline.runner.memory import keep_large_apart
from pipeline.runner.node_builder import Found, NodeBuilder, key_of
from pipeline.runner.read_ahead import ReadAhead
from pipeline.runner.schedule import (
    Outcome,
    Transient,
    Vanished,
    passing_keys,
    transient_outputs,
)
from pipeline.runner.transients import Wanted
from pipeline.runner.workers.messages import (
    Build,
    Computed,
    Done,
    Event,
    Failed,
    Follow,
    Forget,
    Logged,
    Order,
    Progress,
    Ready,
    Setup,
    Told,
)
from pipeline.stage import Stage
from pipeline.store import Store
from pipeline.store.disk import remove

Tell = Callable[[Event], None]


class Worker:
    """Carries out orders one after the other; `tell`, from any thread, sends events."""

    def __init__(self, setup: Setup, tell: Tell) -> None:
        sys.path[:] = dict.fromkeys((*setup.paths, *sys.path))
        keep_large_apart()
        self._setup, self._tell = setup, tell
        self._store = Store(setup.store, warn=lambda text: tell(Told(text=text)))
        folder = Path(tempfile.mkdtemp(prefix="presswork-")) if setup.far else setup.driver
        self._holdings = Holdings(folder, sharers=setup.sharers)
        self._commits = Commits(self._store.get, at_once=1, failed=self._unstored)
        self._builder = NodeBuilder(self._store, _Teller(tell), find=self._found, note=self._note)
        self._given: Mapping[str, HeldResult] = {}
        self._open = ExitStack()
        self._plan: _Followed | None = None

    def ready(self) -> Ready:
        return Ready(signature=signature_for(self._setup))

    def carry_out(self, order: Order) -> None:
        """Do what an order says; what is wrong with a node is told, and the worker goes on."""
        if isinstance(order, Follow):
            self._follow(order.plan)
        elif isinstance(order, Forget):
            for key in order.keys:
                (self._holdings.drop if self._setup.far else self._holdings.give_away)(key)
        elif isinstance(order, Build):
            try:
                self._build(order)
            except BaseException as error:
                self._failed(order.name, error)
                if not isinstance(error, Exception):
                    raise

    def close(self) -> None:
        """Wait until what is done is stored. The node under way is left as it is."""
        self._commits.close()
        if self._setup.far:
            remove(self._holdings.scratch)

    def held(self, key: str) -> HeldResult | None:
        """A transient result that this worker has."""
        return self._holdings.get(key)

    def receive(self, head: HeldResult, write: Callable[[Path], Mapping[str, int]]) -> None:
        """Take over a transient result of another worker, whose files `write` puts in a folder.

        It gives their sizes in bytes.
        """
        path = self._holdings.scratch / f"{head.key}.{uuid.uuid4().hex[:8]}"
        self._holdings.adopt(replace(head, path=path, files=write(path)))

    def _follow(self, plan: Plan) -> None:
        self._open.close()
        stages = [plan.graph.stages[step.node.site] for step in plan.building()]
        imported = self._open.enter_context(importing(dict.fromkeys(stages)))
        find = self._store.get
        ahead = ReadAhead(plan, lambda ref: find(plan.graph.keys[ref]))
        self._open.enter_context(closing(ahead))
        self._commits.budget.reserved = self._holdings.budget.reserved = reserved(plan)
        transient = transient_outputs(plan.graph, keep=self._setup.keep_transient)
        passing = _HandedOn(plan.graph, transient, self._holdings)
        self._plan = _Followed(plan, passing, imported, ahead)

    def _build(self, order: Build) -> None:
        if self._plan is None:
            raise RuntimeError(f"{order.name} is to be built, and there is no plan")
        plan, node = self._plan.plan, self._plan.plan.steps[order.name].node
        self._given = order.inputs
        self._plan.imported(plan.graph.stages[node.site])
        self._plan.ahead.started(node)
        self._builder.build(plan, order.name, self._plan.passing, self._commits)
        keys = [key_of(plan.graph, node, output) for output in node.outputs]
        storing = frozenset(key for key in keys if self._commits.get(key) is not None)
        held = tuple(found for key in keys if (found := self._holdings.get(key)) is not None)
        self._tell(Computed(name=order.name, held=tuple(map(in_files, held)), storing=storing))

    def _found(self, key: str) -> Found:
        held = self._holdings.get(key) or self._given.get(key)
        return held or self._commits.get(key) or self._store.get(key)

    def _note(self, outcome: Outcome) -> None:
        self._tell(Done(outcome=outcome))

    def _failed(self, name: str, error: BaseException, *, storing: bool = False) -> None:
        text = "".join(traceback.format_exception(error))
        self._tell(Failed(name=name, error=_plain(error), traceback=text, storing=storing))

    def _unstored(self, name: str, error: BaseException) -> None:
        self._failed(name, error, storing=True)


def signature_for(setup: Setup) -> dict[str, str]:
    """The signature of this process (`pipeline.machine.signature`), and the store if it sees it."""
    found = signature(setup.packages, setup.libraries, setup.device)
    seen = setup.driver.is_dir()
    return {**found, "store": setup.store.dir if seen else f"not {setup.store.dir}"}


@dataclass(frozen=True, slots=True)
class _Followed:
    """A plan that is being carried out, and what goes with it."""

    plan: Plan
    passing: _HandedOn
    imported: Callable[[Stage], None]
    ahead: ReadAhead


class _HandedOn:
    """Transient results as a worker makes them (`pipeline.runner.node_builder.Passing`)."""

    def __init__(self, graph: Graph, transient: Transient, holdings: Holdings) -> None:
        self._graph, self._transient, self._holdings = graph, transient, holdings
        self._passing = passing_keys(graph, transient)

    def split(self, node: Node, wanted: Wanted) -> tuple[Wanted, Wanted]:
        held = {output: what for output, what in wanted.items() if what[0] in self._passing}
        return {output: what for output, what in wanted.items() if output not in held}, held

    @contextmanager
    def drafts(self, node: Node, wanted: Wanted) -> Iterator[Mapping[str, HeldDraft]]:
        limit = self._graph.stages[node.site].held_memory if wanted else None
        with self._holdings.drafts(wanted, limit) as drafts:
            yield drafts

    def built(self, node: Node, held: Wanted) -> None:
        """Write what is in memory into the driver's folder, for any worker to read."""
        for key, _ in held.values():
            if (result := self._holdings.get(key)) is not None:
                in_files(result)


class _Teller:
    """A watcher (`pipeline.runner.listener.Watcher`) that tells the driver what it cannot see."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def start(self, total: int, reused: int) -> None:
        """The driver knows."""

    def node_started(self, name: str) -> None:
        """The driver knows."""

    def node_finished(self, name: str, seconds: float) -> None:
        """The driver hears of it by `Done`."""

    def update(self, name: str, fraction: float, text: str) -> None:
        self._tell(Progress(name=name, fraction=fraction, text=text))

    def message(self, text: str) -> None:
        self._tell(Told(text=text))

    def stop(self) -> None:
        """The driver knows."""


class LogToDriver(logging.Handler):
    """Sends records of the framework and of stages to the driver's log."""

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._to = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._to(Logged(logger=record.name, level=record.levelno, text=record.getMessage()))


def _plain(error: BaseException) -> BaseException:
    """An error that can be pickled and made again: ours by their words, others by their name."""
    if isinstance(error, Vanished):
        return error
    if isinstance(error, UserError):
        return StageFailed(error.what, remedy=error.remedy)
    return RuntimeError(f"{type(error).__name__}: {error}")
