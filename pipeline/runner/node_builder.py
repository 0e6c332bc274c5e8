"""Building one node in this process: lock, inputs, the stage's run, drafts, outcome."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any, Protocol

from pipeline.errors import StageFailed, UserError
from pipeline.graph import Graph, Node, Ref, identity_of
from pipeline.machine.device_memory import peak_device_bytes, reset_device_peak
from pipeline.machine.out_of_memory import exhausted, too_little
from pipeline.messages import Once
from pipeline.outside import Readings
from pipeline.planning.plan import Plan, to_make
from pipeline.runner.commits import Commit, Commits, PendingDraft, PendingResult
from pipeline.runner.held import HeldDraft, HeldResult
from pipeline.runner.listener import Watcher
from pipeline.runner.memory import Freed, peak_rss_bytes, reset_peak
from pipeline.runner.schedule import Outcome, Vanished
from pipeline.runner.transients import Wanted
from pipeline.stage import Artifact, Task
from pipeline.store import Store, StoredArtifact

Found = HeldResult | PendingResult | StoredArtifact | None
"""A result where it is: in memory, on its way into the store, or there."""


class Passing(Protocol):
    """Where the transient results of nodes go: `pipeline.runner.transients.Transients`, say."""

    def split(self, node: Node, wanted: Wanted) -> tuple[Wanted, Wanted]:
        """Of the outputs to be built: those for the store, and those to be held."""
        ...

    def drafts(self, node: Node, wanted: Wanted) -> AbstractContextManager[Mapping[str, HeldDraft]]:
        """Drafts of what is to be held."""
        ...

    def built(self, node: Node, held: Wanted) -> None:
        """Note new held results."""
        ...


class NodeBuilder:
    """Builds nodes, in any thread. `find` gives a result by its key, `note` is told of outcomes."""

    def __init__(
        self,
        store: Store,
        watcher: Watcher,
        *,
        find: Callable[[str], Found],
        note: Callable[[Outcome], None],
    ) -> None:
        self.store = store
        self.watcher = watcher
        self._find = find
        self._note = note
        self._local = threading.local()
        self._freed = Freed()
        self._warned = Once()

    def build(self, plan: Plan, name: str, passing: Passing, commits: Commits) -> None:
        """Build the missing outputs of one node, unless another process did while we waited."""
        step, graph = plan.steps[name], plan.graph
        node = step.node
        commits.follow(node.site, partial(graph.ancestors, name))
        self.watcher.node_started(name)
        self._freed.give_back()
        reset_peak()
        reset_device_peak()
        started, clock = time.time(), time.perf_counter()
        lock_key = key_of(graph, node, node.outputs[0])

        def waiting() -> None:
            self.watcher.message(f"{name}: another process is building it, waiting")

        with ExitStack() as opened:
            missing = to_make(graph, step, self._stored)
            if missing:
                for output in node.outputs:
                    if (pending := commits.get(key_of(graph, node, output))) is not None:
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
                bytes=sum(self.bytes_of(graph, node, o) for o in {*step.missing, *missing}),
                peak_device_bytes=peak_device_bytes(),
            )
            if stored:
                done = partial(self._note_stored, outcome)
                self.watcher.update(name, 1.0, "being stored")
                commits.add(name, node.site, stored, opened.pop_all(), done)
            else:
                self._note(outcome)

    def bytes_of(self, graph: Graph, node: Node, output: str) -> int:
        """The size of a result; 0 where it is not there."""
        artifact = self._find(key_of(graph, node, output))
        return artifact.bytes if artifact is not None else 0

    def _stored(self, key: str) -> bool:
        return self._find(key) is not None

    def _note_stored(self, outcome: Outcome, commit: Commit) -> None:
        found = (self.store.get(key) for key in commit.results)
        size = sum(artifact.bytes for artifact in found if artifact is not None)
        self._note(outcome.with_stored(commit.started, commit.ended, size))

    def _run_stage(
        self,
        graph: Graph,
        node: Node,
        missing: list[str],
        passing: Passing,
        commits: Commits,
        opened: ExitStack,
    ) -> list[PendingDraft]:
        """Run the stage; gives the drafts that are yet to be stored, for as long as `opened` is."""
        if not missing:
            return []
        inputs = {name: self._input(graph, ref) for name, ref in node.inputs.items()}
        warnings: list[str] = []
        wanted = {o: (key_of(graph, node, o), identity_of(graph, node, o)) for o in missing}
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
                part=node.part,
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
            if isinstance(self._find(key), HeldResult):
                continue
            if not self.store.check(key):
                raise Vanished(f"{ref.node}.{ref.output}")

    def _input(self, graph: Graph, ref: Ref) -> Artifact:
        artifact = self._find(graph.keys[ref])
        if artifact is None:
            raise Vanished(f"{ref.node}.{ref.output}")
        return artifact

    def _resource(self, name: str, make: Callable[[], Any]) -> Any:
        cache: dict[str, Any] = self._local.__dict__.setdefault("resources", {})
        if name not in cache:
            cache[name] = make()
        return cache[name]


def key_of(graph: Graph, node: Node, output: str) -> str:
    """The key of one output of a node."""
    return graph.keys[Ref(node=node.name, output=output)]
