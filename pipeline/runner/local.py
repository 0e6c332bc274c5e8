"""The local runner: builds what a graph lacks on this machine, node by node."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import StageFailed, UserError
from pipeline.graph import Graph, Node, Ref, identity_of
from pipeline.import_ahead import importing
from pipeline.machine.device_memory import peak_device_bytes, reset_device_peak
from pipeline.machine.out_of_memory import exhausted, too_little
from pipeline.messages import Once
from pipeline.outside import Readings
from pipeline.planning.plan import Plan, make_plan, to_make
from pipeline.runner.commits import Commit, Commits, PendingDraft, PendingResult
from pipeline.runner.forecast import reserved
from pipeline.runner.held import HeldDraft, HeldResult, Holdings
from pipeline.runner.listener import Watcher
from pipeline.runner.memory import Freed, keep_large_apart, peak_rss_bytes, reset_peak
from pipeline.runner.read_ahead import ReadAhead
from pipeline.runner.schedule import (
    Outcome,
    ReadyQueue,
    Transient,
    Vanished,
    passing_keys,
    reused,
    side_by_side,
    transient_outputs,
)
from pipeline.runner.transients import Transients
from pipeline.stage import Artifact, Stage, Task
from pipeline.store import Lease, Store, StoredArtifact

log = logging.getLogger(__name__)


class LocalRunner:
    """Runs graphs against one store with `workers` threads; None: as many as the stages say.

    The bytes of a result do not depend on `workers`: each node computes alone, with the number of
    threads that its own parameters say. `others` are keys of results that other jobs of a sweep
    will want, which nodes that run anyway make and store as well.
    """

    def __init__(
        self,
        store: Store,
        *,
        workers: int | None,
        keep_transient: bool,
        watcher: Watcher,
        others: frozenset[str] = frozenset(),
    ) -> None:
        self.store = store
        self.workers = workers
        self.keep_transient = keep_transient
        self.watcher = watcher
        self.others = others
        self.outcomes: dict[str, Outcome] = {}
        self.passing = {"held_bytes": 0, "copied_bytes": 0}
        self._waited, self._read_ahead = 0.0, 0
        self._live: Lease | None = None
        self._local = threading.local()
        self._freed = Freed()
        self._warned = Once()
        self._transients: Transients | None = None
        self._commits: Commits | None = None

    @contextmanager
    def leased(self) -> Iterator[None]:
        """Context in which nobody frees what is found, read or built: from planning to the report.

        Without it each graph that is run has a lease of its own.
        """
        with self.store.live(()) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def find(self, key: str) -> StoredArtifact | None:
        """An artifact of the store, which is kept as long as the lease: `find` of planning."""
        if self._live is not None:
            self._live.extend((key,))
        return self.store.get(key)

    def run(self, graph: Graph) -> Plan:
        """Build every missing target of `graph`; returns the plan as it stood at the start.

        What each node did is in `outcomes`, also after an error. Raises UserError or StageFailed,
        naming the node. A result that disappears or is found corrupt on the way is built again.
        """
        if self._live is None:
            with self.leased():
                return self.run(graph)
        plan, passed = self._planned(graph, self._live), passing_keys(graph, self.transient(graph))
        self._note_hits(plan)
        self.watcher.start(
            len(plan.building()), sum(s.status == "hit" for s in plan.steps.values())
        )
        for key in plan.keys():
            self.store.touch(key)
        if plan.building():
            self.store.check_writable()
            self._run(plan, self._live)
        self._live.forgo(passed)  # what is held no more: others need not store it for this run
        return plan

    def _run(self, plan: Plan, live: Lease) -> None:
        graph, lost = plan.graph, set[str]()
        with (
            self._committing(graph) as commits,
            self._passing(graph, live, commits) as passing,
        ):
            if passing.await_others(plan, self.watcher.message):
                plan = self._planned(graph, live)
            while plan.building():
                try:
                    self._execute(plan, passing, commits)
                    commits.settle()
                except Vanished as error:
                    if str(error) in lost:
                        raise StageFailed(
                            f"{error} disappears from the store as soon as it is built",
                            remedy="is something else deleting files there?",
                        ) from error
                    lost.add(str(error))
                    log.warning("%s is gone from the store; building it again", error)
                plan = self._planned(graph, live)

    def _planned(self, graph: Graph, live: Lease) -> Plan:
        """A plan of which nothing that it counts on is freed before it is carried out."""
        live.extend(frozenset(graph.keys.values()) - passing_keys(graph, self.transient(graph)))
        live.extend(self.planned(graph).keys())
        return self.planned(graph)

    def planned(self, graph: Graph) -> Plan:
        """The plan of a graph as the store and what is held are now."""
        passing = passing_keys(graph, self.transient(graph))
        return make_plan(graph, self._stored, self.others - passing)

    @property
    def beside(self) -> dict[str, float]:
        """What was done beside nodes: result.json's entry of that name."""
        stored = (outcome.stored for outcome in self.outcomes.values())
        return {
            "storing_seconds": sum(span[1] for span in stored if span is not None),
            "waited_seconds": self._waited,
            "read_ahead_bytes": self._read_ahead,
        }

    def result(self, graph: Graph, ref: Ref) -> Artifact | None:
        """Build one output and return it: the `build` of `pipeline.planning.expand`."""
        self.run(replace(graph, targets=(ref,)))
        return self.store.get(graph.keys[ref])

    @contextmanager
    def _committing(self, graph: Graph) -> Iterator[Commits]:
        """Context of results that are being stored; stopped by an error, they still are."""
        workers = self._workers(graph.stages.values())
        with closing(Commits(self.store.get, at_once=workers)) as commits:
            self._commits = commits
            try:
                yield commits
            finally:
                self._commits = None
                self._waited += commits.waited

    @contextmanager
    def _passing(self, graph: Graph, live: Lease, commits: Commits) -> Iterator[Transients]:
        """Context of the transient results of a run; stopped by an error, the newest are stored."""
        with self.store.scratch() as scratch:
            holdings = Holdings(scratch)
            passing = Transients(
                graph, self.transient(graph), self.store, live, holdings, commits.settle
            )
            self._transients = passing
            try:
                yield passing
                passing.copies.finish()
            except BaseException:
                passing.copies.save()
                raise
            finally:
                passing.copies.close()
                self._note_passing(passing)
                self._transients = None

    def _note_passing(self, passing: Transients) -> None:
        held, copied = passing.holdings.budget.peak, passing.copies.bytes
        self.passing["held_bytes"] = max(self.passing["held_bytes"], held)
        self.passing["copied_bytes"] += copied
        if held or copied:
            log.info("held at most %d bytes in memory, copied %d to the store", held, copied)

    def _found(self, key: str) -> HeldResult | PendingResult | StoredArtifact | None:
        held = self._transients.get(key) if self._transients is not None else None
        pending = self._commits.get(key) if self._commits is not None else None
        return held or pending or self.store.get(key)

    def _stored(self, key: str) -> bool:
        return self._found(key) is not None

    def _note_hits(self, plan: Plan) -> None:
        for name, step in plan.steps.items():
            if step.status == "hit" and name not in self.outcomes:
                size = sum(self._bytes(plan.graph, step.node, output) for output in step.stored)
                self.outcomes[name] = reused(name, size)

    def _bytes(self, graph: Graph, node: Node, output: str) -> int:
        artifact = self._found(_key(graph, node, output))
        return artifact.bytes if artifact is not None else 0

    def _workers(self, stages: Iterable[Stage]) -> int:
        return self.workers or max((stage.beside for stage in stages), default=1)

    def _execute(self, plan: Plan, passing: Transients, commits: Commits) -> None:
        keep_large_apart()
        queue = ReadyQueue(plan)
        passing.follow(plan)
        commits.budget.reserved = reserved(plan)

        def after(name: str) -> None:
            queue.done(name)
            passing.finished(name)

        stages = [plan.graph.stages[step.node.site] for step in plan.building()]
        with (
            importing(dict.fromkeys(stages)) as imported,
            self._reading_ahead(plan) as ahead,
        ):

            def run_one(name: str) -> None:
                node = plan.steps[name].node
                imported(plan.graph.stages[node.site])
                ahead.started(node)
                self._build(plan, name, passing, commits)

            workers = self._workers(stages)
            if workers == 1:
                while (name := queue.pop()) is not None:
                    run_one(name)
                    after(name)
                return
            side_by_side(workers, run_one, queue, after)

    @contextmanager
    def _reading_ahead(self, plan: Plan) -> Iterator[ReadAhead]:
        with closing(ReadAhead(plan, lambda ref: self.store.get(plan.graph.keys[ref]))) as ahead:
            yield ahead
        self._read_ahead += ahead.bytes

    def transient(self, graph: Graph) -> Transient:
        """What gives the outputs of a site that this runner drops once they are read."""
        return transient_outputs(graph, keep=self.keep_transient)

    def _build(self, plan: Plan, name: str, passing: Transients, commits: Commits) -> None:
        """Build the missing outputs of one node, unless another process did while we waited."""
        step, graph = plan.steps[name], plan.graph
        node = step.node
        commits.follow(node.site, partial(graph.ancestors, name))
        self.watcher.node_started(name)
        self._freed.give_back()
        reset_peak()
        reset_device_peak()
        started, clock = time.time(), time.perf_counter()
        lock_key = graph.keys[Ref(node=name, output=node.outputs[0])]

        def waiting() -> None:
            self.watcher.message(f"{name}: another process is building it, waiting")

        with ExitStack() as opened:
            missing = to_make(graph, step, self._stored)
            if missing:
                for output in node.outputs:
                    if (pending := commits.get(_key(graph, node, output))) is not None:
                        pending.stored()  # the lock is held until then
                opened.enter_context(self.store.lock(lock_key, waiting))
                missing = to_make(graph, step, self._stored)
            stored = self._run_stage(graph, node, missing, passing, commits, opened)
            outcome = Outcome(
                name=name,
                status="built" if missing else "waited",
                started=started,
                seconds=time.perf_counter() - clock,
                peak_rss_bytes=peak_rss_bytes(),
                bytes=sum(self._bytes(graph, node, o) for o in {*step.missing, *missing}),
                peak_device_bytes=peak_device_bytes(),
            )
            if stored:
                done = partial(self._note_stored, outcome)
                self.watcher.update(name, 1.0, "being stored")
                commits.add(name, node.site, stored, opened.pop_all(), done)
            else:
                self._note(outcome)

    def _note_stored(self, outcome: Outcome, commit: Commit) -> None:
        found = (self.store.get(key) for key in commit.results)
        size = sum(artifact.bytes for artifact in found if artifact is not None)
        span = (commit.started, commit.ended - commit.started)
        self._note(replace(outcome, bytes=outcome.bytes + size, stored=span))

    def _note(self, outcome: Outcome) -> None:
        """Note a node that is done, all its results in their place."""
        name, seconds = outcome.name, outcome.seconds
        self.outcomes[name] = outcome
        done = "built" if outcome.status == "built" else "waited for"
        log.info("%s %s in %.2f s", done, name, seconds, extra={"node": name, "seconds": seconds})
        self.watcher.node_finished(name, seconds)

    def _run_stage(
        self,
        graph: Graph,
        node: Node,
        missing: list[str],
        passing: Transients,
        commits: Commits,
        opened: ExitStack,
    ) -> list[PendingDraft]:
        """Run the stage; gives the drafts that are yet to be stored, for as long as `opened` is."""
        if not missing:
            return []
        inputs = {name: self._input(graph, ref) for name, ref in node.inputs.items()}
        warnings: list[str] = []
        wanted = {o: (_key(graph, node, o), identity_of(graph, node, o)) for o in missing}
        stored, held = passing.split(node, wanted)
        began = time.monotonic()
        stored_drafts = commits.drafts(opened.enter_context(self.store.drafts(stored)), opened)
        outside = Readings()
        with self.store.scratch() as scratch, passing.drafts(node, held) as held_drafts:
            drafts: dict[str, HeldDraft] = {**stored_drafts, **held_drafts}
            task = Task(
                node_name=node.name,
                member=node.member,
                index=node.index,
                inputs=inputs,
                outputs={output: drafts[output] for output in missing},
                scratch=scratch,
                progress=partial(self.watcher.update, node.name),
                warn=warnings.append,
                resource=self._resource,
                reads=outside.add,
            )
            try:
                with outside.watched():
                    graph.stages[node.site].run(task)
            except (UserError, MemoryError, RuntimeError, OSError) as error:
                if (whose := exhausted(error)) is not None:
                    stage = graph.stages[node.site]
                    raise too_little(node.name, whose, stage.lighter, error) from None
                if not isinstance(error, UserError):
                    raise
                commits.settle()
                self._check_inputs(graph, node)
                raise StageFailed(f"{node.name}: {error.what}", remedy=error.remedy) from error
            for draft in drafts.values():
                if warnings:
                    draft.meta["warnings"] = list(warnings)
                draft.record["peak_rss_bytes"] = peak_rss_bytes()
                if (on_device := peak_device_bytes()) is not None:
                    draft.record["peak_device_bytes"] = on_device
                draft.record["seconds"] = round(time.monotonic() - began, 3)
        passing.built(node, held)
        for text in self._warned.new(warnings):  # the report has all of them, counted
            self.watcher.message(f"warning: {node.name}: {text}")
        return list(stored_drafts.values())

    def _check_inputs(self, graph: Graph, node: Node) -> None:
        """Look whether a failure came from a damaged input; it is put aside and built again."""
        for ref in node.inputs.values():
            key = graph.keys[ref]
            if isinstance(self._found(key), HeldResult):
                continue
            if not self.store.check(key):
                raise Vanished(f"{ref.node}.{ref.output}")

    def _input(self, graph: Graph, ref: Ref) -> Artifact:
        artifact = self._found(graph.keys[ref])
        if artifact is None:
            raise Vanished(f"{ref.node}.{ref.output}")
        return artifact

    def _resource(self, name: str, make: Callable[[], Any]) -> Any:
        cache: dict[str, Any] = self._local.__dict__.setdefault("resources", {})
        if name not in cache:
            cache[name] = make()
        return cache[name]


def _key(graph: Graph, node: Node, output: str) -> str:
    return graph.keys[Ref(node=node.name, output=output)]
