"""The runner: plans what a graph lacks, and has executors build it, node by node."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace

from pipeline.errors import StageFailed
from pipeline.graph import Graph, Ref
from pipeline.import_ahead import importing
from pipeline.planning.plan import Plan, make_plan
from pipeline.runner.commits import Commits
from pipeline.runner.executor import Inline, Threads, carry_out
from pipeline.runner.forecast import reserved
from pipeline.runner.held import Holdings
from pipeline.runner.listener import Watcher
from pipeline.runner.memory import keep_large_apart
from pipeline.runner.node_builder import Found, NodeBuilder
from pipeline.runner.read_ahead import ReadAhead
from pipeline.runner.schedule import (
    Lost,
    Outcome,
    ReadyQueue,
    Transient,
    Vanished,
    passing_keys,
    reused,
    transient_outputs,
)
from pipeline.runner.transients import Transients
from pipeline.runner.workers.chosen import Crews
from pipeline.runner.workers.pool import Pool
from pipeline.runner.workers.storing import Storing
from pipeline.stage import Artifact, Stage
from pipeline.store import Lease, Store, StoredArtifact

log = logging.getLogger(__name__)


class LocalRunner:
    """Runs graphs against one store with `workers` threads; None: as many as the stages say.

    With `crews` the nodes of `run` are built by its workers, in processes of their own, and this
    process only plans, and builds what a graph is expanded from (`result`).

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
        crews: Crews = nullcontext,
    ) -> None:
        self.store = store
        self.workers = workers
        self.keep_transient = keep_transient
        self.watcher = watcher
        self.others = others
        self.crews = crews
        self.outcomes: dict[str, Outcome] = {}
        self.passing = {"held_bytes": 0, "copied_bytes": 0}
        self._waited, self._read_ahead = 0.0, 0
        self._live: Lease | None = None
        self._builder = NodeBuilder(store, watcher, find=self._found, note=self._note)
        self._transients: Transients | None = None
        self._commits: Commits | None = None
        self._storing: Storing | None = None

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

    def run(self, graph: Graph, *, crew: bool = True) -> Plan:
        """Build every missing target of `graph`; returns the plan as it stood at the start.

        What each node did is in `outcomes`, also after an error. Raises UserError or StageFailed,
        naming the node. A result that disappears or is found corrupt on the way is built again.
        Without `crew` all of it is built in this process.
        """
        if self._live is None:
            with self.leased():
                return self.run(graph, crew=crew)
        plan, passed = self._planned(graph, self._live), passing_keys(graph, self.transient(graph))
        self._note_hits(plan)
        self.watcher.start(
            len(plan.building()), sum(s.status == "hit" for s in plan.steps.values())
        )
        for key in plan.keys():
            self.store.touch(key)
        if plan.building():
            self.store.check_writable()
            elsewhere = any(not graph.stages[s.node.site].in_driver for s in plan.building())
            self._run(plan, self._live, self.crews if crew and elsewhere else nullcontext)
        self._live.forgo(passed)  # what is held no more: others need not store it for this run
        return plan

    def _run(self, plan: Plan, live: Lease, crews: Crews) -> None:
        graph, vanished = plan.graph, set[str]()
        with (
            self._committing(graph) as commits,
            self._passing(graph, live) as passing,
            self._pool(graph, crews, passing) as pool,
        ):
            if passing.await_others(plan, self.watcher.message):
                plan = self._planned(graph, live)
            while plan.building():
                try:
                    self._execute(plan, passing, commits, pool)
                    commits.settle()
                except Vanished as error:
                    if str(error) in vanished:
                        raise StageFailed(
                            f"{error} disappears from the store as soon as it is built",
                            remedy="is something else deleting files there?",
                        ) from error
                    vanished.add(str(error))
                    log.warning("%s is gone from the store; building it again", error)
                except Lost as error:
                    self.watcher.message(f"warning: {error}: it is built again")
                self._settle()
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
        self.run(replace(graph, targets=(ref,)), crew=False)
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
    def _passing(self, graph: Graph, live: Lease) -> Iterator[Transients]:
        """Context of the transient results of a run; stopped by an error, the newest are stored."""
        with self.store.scratch() as scratch:
            holdings = Holdings(scratch)
            passing = Transients(
                graph, self.transient(graph), self.store, live, holdings, self._settle
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

    def _found(self, key: str) -> Found:
        held = self._transients.get(key) if self._transients is not None else None
        pending = self._commits.get(key) if self._commits is not None else None
        return held or pending or self.store.get(key)

    def _stored(self, key: str) -> bool:
        return self._found(key) is not None

    def _note_hits(self, plan: Plan) -> None:
        for name, step in plan.steps.items():
            if step.status == "hit" and name not in self.outcomes:
                size = sum(self._builder.bytes_of(plan.graph, step.node, o) for o in step.stored)
                self.outcomes[name] = reused(name, size)

    def _workers(self, stages: Iterable[Stage]) -> int:
        return self.workers or max((stage.beside for stage in stages), default=1)

    def _execute(
        self, plan: Plan, passing: Transients, commits: Commits, pool: Pool | None
    ) -> None:
        keep_large_apart()
        queue = ReadyQueue(plan)
        passing.follow(plan)
        commits.budget.reserved = reserved(plan)

        def after(name: str) -> None:
            queue.done(name)
            passing.finished(name)

        stages = [plan.graph.stages[step.node.site] for step in plan.building()]
        if pool is not None:
            with self._own(plan, [s for s in stages if s.in_driver], passing, commits) as run_one:

                def to_its_end(name: str) -> None:
                    run_one(name)
                    commits.settle()  # workers read it from the store

                pool.follow(plan, passing, to_its_end)
                carry_out(queue, pool, after)
                pool.settle()
            return
        workers = self._workers(stages)
        with self._own(plan, stages, passing, commits) as run_one:
            made = Inline(run_one) if workers == 1 else Threads(workers, run_one)
            with closing(made) as executor:
                carry_out(queue, executor, after)

    @contextmanager
    def _own(
        self, plan: Plan, stages: Iterable[Stage], passing: Transients, commits: Commits
    ) -> Iterator[Callable[[str], None]]:
        """Context of a function that builds a node in this process, of one of these stages."""
        with (
            importing(dict.fromkeys(stages)) as imported,
            self._reading_ahead(plan) as ahead,
        ):

            def run_one(name: str) -> None:
                node = plan.steps[name].node
                imported(plan.graph.stages[node.site])
                ahead.started(node)
                self._builder.build(plan, name, passing, commits)

            yield run_one

    @contextmanager
    def _pool(self, graph: Graph, crews: Crews, passing: Transients) -> Iterator[Pool | None]:
        """Context of the workers of a run, if it has any."""
        with crews() as crew:
            if crew is None:
                yield None
                return
            with crew.pool(
                graph,
                store=self.store.config,
                scratch=passing.holdings.scratch,
                keep_transient=self.keep_transient,
                watcher=self.watcher,
                note=self._note,
            ) as pool:
                self._storing = pool.storing
                try:
                    yield pool
                except BaseException:
                    passing.copies.save()  # what is in the cluster's memory goes with it
                    raise
                finally:
                    passing.copies.pause()

    def _settle(self) -> None:
        """Wait until all that was built is in the store, here and by workers."""
        if self._commits is not None:
            self._commits.settle()
        if self._storing is not None:
            self._storing.settle()

    @contextmanager
    def _reading_ahead(self, plan: Plan) -> Iterator[ReadAhead]:
        with closing(ReadAhead(plan, lambda ref: self.store.get(plan.graph.keys[ref]))) as ahead:
            yield ahead
        self._read_ahead += ahead.bytes

    def transient(self, graph: Graph) -> Transient:
        """What gives the outputs of a site that this runner drops once they are read."""
        return transient_outputs(graph, keep=self.keep_transient)

    def _note(self, outcome: Outcome) -> None:
        """Note a node that is done, all its results in their place."""
        name, seconds = outcome.name, outcome.seconds
        self.outcomes[name] = outcome
        done = "built" if outcome.status == "built" else "waited for"
        log.info("%s %s in %.2f s", done, name, seconds, extra={"node": name, "seconds": seconds})
        self.watcher.node_finished(name, seconds)
