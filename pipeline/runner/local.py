"""The local runner: builds what a graph lacks on this machine, node by node."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import StageFailed, UserError
from pipeline.graph import Graph, Node, Ref
from pipeline.import_ahead import importing
from pipeline.key import canonical
from pipeline.machine.device_memory import peak_device_bytes, reset_device_peak
from pipeline.planning.plan import Plan, make_plan
from pipeline.run_listener import Watcher
from pipeline.runner.memory import Freed, keep_large_apart, peak_rss_bytes, reset_peak
from pipeline.runner.schedule import Outcome, ReadyQueue, Releases
from pipeline.stage import Artifact, Task
from pipeline.store import Lease, Store

log = logging.getLogger(__name__)


class Vanished(Exception):
    """An input that was there when the plan was made is gone, or turned out to be corrupt."""


class LocalRunner:
    """Runs graphs against one store with `workers` threads; None: as many as the stages say.

    The bytes of a result do not depend on `workers`: each node computes alone, with the number of
    threads that its own parameters say.
    """

    def __init__(
        self,
        store: Store,
        *,
        workers: int | None,
        keep_transient: bool,
        watcher: Watcher,
    ) -> None:
        self.store = store
        self.workers = workers
        self.keep_transient = keep_transient
        self.watcher = watcher
        self.outcomes: dict[str, Outcome] = {}
        self._local = threading.local()
        self._freed = Freed()

    def run(self, graph: Graph) -> Plan:
        """Build every missing target of `graph`; returns the plan as it stood at the start.

        What each node did is in `outcomes`, also after an error. Raises UserError or StageFailed,
        naming the node. A result that disappears or is found corrupt on the way is built again.
        """
        first = plan = make_plan(graph, self._stored)
        self._note_hits(plan)
        self.watcher.start(
            len(plan.building()), sum(s.status == "hit" for s in plan.steps.values())
        )
        lost: set[str] = set()
        with self.store.live(plan.keys()) as live:
            while plan.building():
                try:
                    self._execute(plan, live)
                except Vanished as error:
                    if str(error) in lost:
                        raise StageFailed(
                            f"{error} disappears from the store as soon as it is built",
                            remedy="is something else deleting files there?",
                        ) from error
                    lost.add(str(error))
                    log.warning("%s is gone from the store; building it again", error)
                plan = make_plan(graph, self._stored)
                live.extend(plan.keys())
        return first

    def result(self, graph: Graph, ref: Ref) -> Artifact | None:
        """Build one output and return it: the `build` of `pipeline.planning.expand`."""
        self.run(replace(graph, targets=(ref,)))
        return self.store.get(graph.keys[ref])

    def _stored(self, key: str) -> bool:
        return self.store.get(key) is not None

    def _note_hits(self, plan: Plan) -> None:
        now = time.time()
        for name, step in plan.steps.items():
            if step.status == "hit" and name not in self.outcomes:
                self.outcomes[name] = Outcome(
                    name=name,
                    status="hit",
                    started=now,
                    seconds=0.0,
                    peak_rss_bytes=0,
                    bytes=sum(self._bytes(plan.graph, step.node, o) for o in step.stored),
                )

    def _bytes(self, graph: Graph, node: Node, output: str) -> int:
        artifact = self.store.get(graph.keys[Ref(node=node.name, output=output)])
        return artifact.bytes if artifact is not None else 0

    def _execute(self, plan: Plan, live: Lease) -> None:
        keep_large_apart()
        queue = ReadyQueue(plan)
        releases = Releases(plan, self.transient(plan.graph))

        def after(name: str) -> None:
            queue.done(name)
            for ref in releases.finished(name):
                self.store.drop(plan.graph.keys[ref], own=live)

        stages = [plan.graph.stages[step.node.site] for step in plan.building()]
        with importing(dict.fromkeys(stages)) as imported:

            def run_one(name: str) -> None:
                imported(plan.graph.stages[plan.steps[name].node.site])
                self._build(plan, name)

            workers = self.workers or max((stage.beside for stage in stages), default=1)
            if workers == 1:
                while (name := queue.pop()) is not None:
                    run_one(name)
                    after(name)
                return
            with ThreadPoolExecutor(workers, thread_name_prefix="worker") as pool:
                self._execute_in(pool, workers, run_one, queue, after)

    def _execute_in(
        self,
        pool: ThreadPoolExecutor,
        workers: int,
        run_one: Callable[[str], None],
        queue: ReadyQueue,
        after: Callable[[str], None],
    ) -> None:
        running: dict[Future[None], str] = {}
        try:
            while queue.active():
                while len(running) < workers and (name := queue.pop()) is not None:
                    running[pool.submit(run_one, name)] = name
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    future.result()
                    after(running.pop(future))
        except BaseException:
            for future in running:
                future.cancel()
            raise

    def transient(self, graph: Graph) -> Callable[[str], frozenset[str]]:
        """What gives the outputs of a site that this runner drops once they are read."""
        if self.keep_transient:
            return lambda site: frozenset()
        return lambda site: graph.stages[site].transient()

    def _build(self, plan: Plan, name: str) -> None:
        """Build the missing outputs of one node, unless another process did while we waited."""
        step, graph = plan.steps[name], plan.graph
        node = step.node
        self.watcher.node_started(name)
        self._freed.give_back()
        reset_peak()
        reset_device_peak()
        started, clock = time.time(), time.perf_counter()
        lock_key = graph.keys[Ref(node=name, output=node.outputs[0])]

        def waiting() -> None:
            self.watcher.message(f"{name}: another process is building it, waiting")

        with self.store.lock(lock_key, waiting):
            missing = [o for o in step.missing if not self._stored(_key(graph, node, o))]
            if missing:
                self._run_stage(graph, node, missing)
        seconds = time.perf_counter() - clock
        self.outcomes[name] = Outcome(
            name=name,
            status="built" if missing else "waited",
            started=started,
            seconds=seconds,
            peak_rss_bytes=peak_rss_bytes(),
            bytes=sum(self._bytes(graph, node, output) for output in step.missing),
            peak_device_bytes=peak_device_bytes(),
        )
        done = "built" if missing else "waited for"
        log.info("%s %s in %.2f s", done, name, seconds, extra={"node": name, "seconds": seconds})
        self.watcher.node_finished(name, seconds)

    def _run_stage(self, graph: Graph, node: Node, missing: list[str]) -> None:
        inputs = {name: self._input(graph, ref) for name, ref in node.inputs.items()}
        warnings: list[str] = []
        wanted = {o: (_key(graph, node, o), _identity(graph, node, o)) for o in missing}
        with self.store.scratch() as scratch, self.store.drafts(wanted) as drafts:
            task = Task(
                node_name=node.name,
                member=node.member,
                index=node.index,
                inputs=inputs,
                outputs=drafts,
                scratch=scratch,
                progress=partial(self.watcher.update, node.name),
                warn=warnings.append,
                resource=self._resource,
            )
            try:
                graph.stages[node.site].run(task)
            except UserError as error:
                self._check_inputs(graph, node)
                raise StageFailed(f"{node.name}: {error.what}", remedy=error.remedy) from error
            for draft in drafts.values():
                if warnings:
                    draft.meta["warnings"] = list(warnings)
                draft.record["peak_rss_bytes"] = peak_rss_bytes()
                if (on_device := peak_device_bytes()) is not None:
                    draft.record["peak_device_bytes"] = on_device
        for text in warnings:
            self.watcher.message(f"warning: {node.name}: {text}")

    def _check_inputs(self, graph: Graph, node: Node) -> None:
        """Look whether a failure came from a damaged input; it is put aside and built again."""
        for ref in node.inputs.values():
            if not self.store.check(graph.keys[ref]):
                raise Vanished(f"{ref.node}.{ref.output}")

    def _input(self, graph: Graph, ref: Ref) -> Artifact:
        artifact = self.store.get(graph.keys[ref])
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


def _identity(graph: Graph, node: Node, output: str) -> dict[str, Any]:
    """What a manifest tells about how its artifact was made."""
    return {
        "kind": node.kind,
        "node": node.name,
        "output": output,
        "version": node.version,
        "params": canonical(node.params),
        "inputs": {name: graph.keys[ref] for name, ref in node.inputs.items()},
    }
