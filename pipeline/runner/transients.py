"""Transient results of one run: which are held, who still reads them, what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.graph import Graph, Node, Ref
from pipeline.planning.plan import Plan
from pipeline.runner.copies import Copies
from pipeline.runner.forecast import reserved
from pipeline.runner.held import HeldDraft, HeldResult, Holdings
from pipeline.runner.schedule import Releases, Transient, handed_on
from pipeline.store import Lease, Store

Wanted = Mapping[str, tuple[str, Mapping[str, Any]]]
"""Output -> its key, and what a manifest tells about how it was made."""

PATIENCE = 0.05
"""Seconds between two looks whether another run has handed something over."""


class Transients:
    """Holds, copies and drops the transient results of a run, whose targets are none of them."""

    def __init__(
        self,
        graph: Graph,
        transient: Transient,
        store: Store,
        live: Lease,
        holdings: Holdings,
        settle: Callable[[], None],
    ) -> None:
        config = store.config
        self.holdings = holdings
        self.copies = Copies(
            store,
            holdings,
            live,
            every=config.copy_every,
            seconds=config.copy_seconds,
            settle=settle,
        )
        self._store, self._live = store, live
        self._graph, self._transient = graph, transient
        self._targets = frozenset(graph.keys[ref] for ref in graph.targets)
        self._chains: dict[str, str] = {}
        self._releases: Releases | None = None

    def get(self, key: str) -> HeldResult | None:
        return self.holdings.get(key)

    def follow(self, plan: Plan) -> None:
        """Count the readers in a plan that is about to be executed."""
        self._chains = handed_on(plan, self._transient)
        self.copies.expect(self._missing(plan))
        self.holdings.budget.reserved = reserved(plan)
        self._releases = Releases(plan, self._transient)
        for key in self.holdings.keys() - self._releases.read():
            self._let_go(key)

    def split(self, node: Node, wanted: Wanted) -> tuple[Wanted, Wanted]:
        """Of the outputs to be built: those for the store, and those to be held."""
        passing = self._transient(node.site)
        held = {
            output: what
            for output, what in wanted.items()
            if output in passing and what[0] not in self._targets
        }
        return {output: what for output, what in wanted.items() if output not in held}, held

    @contextmanager
    def drafts(self, node: Node, wanted: Wanted) -> Iterator[dict[str, HeldDraft]]:
        """Drafts of what is to be held."""
        limit = self._graph.stages[node.site].held_memory if wanted else None
        with self.holdings.drafts(wanted, limit) as drafts:
            yield drafts

    def built(self, node: Node, held: Wanted) -> None:
        """Note new held results; the caller still has the node's lock, if others wait for it."""
        for key, _ in held.values():
            if key in self._chains:
                self.copies.made(self._chains[key], key)
        self.copies.hand_over(self._chains.get)

    def adopt(self, node: Node, results: Collection[HeldResult]) -> None:
        """Note held results of a node that a worker has built, in files."""
        made = {result.output: (result.key, result.record) for result in results}
        for result in results:
            self.holdings.adopt(result)
        self.built(node, made)

    def finished(self, name: str) -> None:
        """Let go of what no node reads any more, now that this one is done."""
        if self._releases is None:
            return
        for ref in self._releases.finished(name):
            self._let_go(self._graph.keys[ref])

    def _let_go(self, key: str) -> None:
        if key in self._targets:
            return
        if key in self._chains:
            self.copies.released(self._chains[key], key)
        else:
            self.copies.drop(key)

    def await_others(self, plan: Plan, message: Callable[[str], None]) -> bool:
        """Wait until other runs have stored what they hold and this plan needs; False: nothing."""
        nodes = self._missing(plan)
        self.copies.expect(nodes)
        asked = self._live.held_elsewhere(frozenset(nodes))
        if asked:
            message(f"another run has {nodes[min(asked)]} in memory: waiting until it is stored")
        left = asked
        while left:
            time.sleep(PATIENCE)
            self.copies.hand_over(self._chains.get)
            left = frozenset(key for key in left if not self._store.has(key))
            left = self._live.held_elsewhere(left)
        return bool(asked)

    def _missing(self, plan: Plan) -> dict[str, str]:
        """Key -> node of the transient results that a plan is to build."""
        return {
            self._graph.keys[Ref(node=step.node.name, output=output)]: step.node.name
            for step in plan.building()
            for output in frozenset(step.missing) & self._transient(step.node.site)
            if self._graph.keys[Ref(node=step.node.name, output=output)] not in self._targets
        }
