"""Scheduling of nodes: ready queue, outcomes, and release of transient results."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import Literal

from pipeline.graph import Graph, Ref
from pipeline.planning.plan import Plan

Transient = Callable[[str], frozenset[str]]
"""Site name -> its outputs that are dropped once they are read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The outcome of one node. `started` and `seconds` are wall time, `bytes` the size it stored.
    `peak_device_bytes` is None where no GPU was used. `stored` says when the result was written,
    hashed and synced (start, seconds); None where nothing was. `worker` is the process that built
    it; empty where there is but one.

    `status` is `built` if this run did the work, `hit` if the store had the result, and `waited`
    if another process built it meanwhile.
    """

    name: str
    status: Literal["built", "hit", "waited"]
    started: float
    seconds: float
    peak_rss_bytes: int
    bytes: int
    peak_device_bytes: int | None = None
    stored: tuple[float, float] | None = None
    worker: str = ""

    def with_stored(self, started: float, ended: float, size: int) -> Outcome:
        """The same once `size` bytes more were stored, from one time to another."""
        return replace(self, bytes=self.bytes + size, stored=(started, ended - started))


def reused(name: str, size: int) -> Outcome:
    """The outcome of a node whose wanted results, of `size` bytes, were there already."""
    return Outcome(
        name=name, status="hit", started=time.time(), seconds=0.0, peak_rss_bytes=0, bytes=size
    )


class Vanished(Exception):
    """An input that was there when the plan was made is gone, or turned out to be corrupt."""


class Lost(Exception):
    """A worker ended before it was done: what it was building is planned again."""


class ReadyQueue:
    """Priority queue of the nodes of a plan whose inputs are all available.

    A node of member k comes before one of member k+1, and within a member the later stage comes
    first, so that each member is finished as early as possible and its transient results can go.
    With `chains_first`, for many workers, the node with the longest chain of nodes still to follow
    comes before all that: what others wait for is not kept waiting by what nobody waits for.
    """

    def __init__(self, plan: Plan, *, chains_first: bool = False) -> None:
        building = {step.node.name for step in plan.building()}
        self._position = {name: i for i, name in enumerate(plan.graph.nodes)}
        self._nodes = plan.graph.nodes
        self._sorter = TopologicalSorter(
            {
                name: {ref.node for ref in self._nodes[name].inputs.values()} & building
                for name in building
            }
        )
        self._sorter.prepare()
        self._heap: list[tuple[float, float, int, str]] = []
        self._left = seconds_left(plan) if chains_first else {}
        self._fill()

    def pop(self) -> str | None:
        """The next node to start, or None while nothing is ready."""
        return heapq.heappop(self._heap)[3] if self._heap else None

    def put_back(self, name: str) -> None:
        """Have a node that was popped be ready again."""
        heapq.heappush(self._heap, self._entry(name))

    def done(self, name: str) -> None:
        self._sorter.done(name)
        self._fill()

    def active(self) -> bool:
        """Whether any node has yet to start or to finish."""
        return bool(self._heap) or self._sorter.is_active()

    def _fill(self) -> None:
        for name in self._sorter.get_ready():
            heapq.heappush(self._heap, self._entry(name))

    def _entry(self, name: str) -> tuple[float, float, int, str]:
        index = self._nodes[name].index
        member = float("inf") if index is None else float(index)
        return -self._left.get(name, 0.0), member, -self._position[name], name


def seconds_left(plan: Plan) -> dict[str, float]:
    """By node to be built the estimated seconds of the longest chain that begins with it."""
    left: dict[str, float] = {}
    after: dict[str, float] = {}
    for name in reversed(list(plan.steps)):
        step = plan.steps[name]
        if step.status != "build":
            continue
        left[name] = step.node.estimate.seconds + after.get(name, 0.0)
        for ref in step.node.inputs.values():
            after[ref.node] = max(after.get(ref.node, 0.0), left[name])
    return left


def transient_outputs(graph: Graph, *, keep: bool) -> Transient:
    """What gives the transient outputs of a site; with `keep` there are none."""
    if keep:
        return lambda site: frozenset()
    return lambda site: graph.stages[site].transient()


def before_sending(graph: Graph) -> Graph:
    """The graph with targets that come before every stage that sends; itself if none does."""
    sending = {node.name for node in graph.nodes.values() if graph.stages[node.site].sends}
    if not sending:
        return graph
    targets = [ref for ref in graph.targets if not sending & {ref.node, *graph.ancestors(ref.node)}]
    sent = [ref for name in sending for ref in graph.nodes[name].inputs.values()]
    return replace(graph, targets=tuple(dict.fromkeys((*targets, *sent))))


def passing_keys(graph: Graph, transient: Transient) -> frozenset[str]:
    """Keys of the transient results, without targets: a lease lists them only while needed."""
    targets = {graph.keys[ref] for ref in graph.targets}
    passing = {
        key
        for ref, key in graph.keys.items()
        if ref.output in transient(graph.nodes[ref.node].site)
    }
    return frozenset(passing - targets)


class Releases:
    """Reference counts of the transient outputs of a plan; outputs with one key count as one.

    `transient` gives, by site, the outputs that are not worth keeping. A result that has not been
    read yet is always kept: what reads it needs it.
    """

    def __init__(self, plan: Plan, transient: Transient) -> None:
        self._readers: dict[str, set[str]] = {}
        self._keys = plan.graph.keys
        nodes = plan.graph.nodes
        self._inputs: dict[str, dict[str, Ref]] = {}
        for step in plan.building():
            mine = self._inputs[step.node.name] = {}
            for ref in step.node.inputs.values():
                if ref.output in transient(nodes[ref.node].site):
                    mine[self._keys[ref]] = ref
                    self._readers.setdefault(self._keys[ref], set()).add(step.node.name)

    def read(self) -> frozenset[str]:
        """Keys of all that some node has yet to read."""
        return frozenset(key for key, readers in self._readers.items() if readers)

    def finished(self, name: str) -> list[Ref]:
        """Record that a node is done; returns the outputs that no node will read any more."""
        free = []
        for key, ref in self._inputs[name].items():
            readers = self._readers[key]
            readers.discard(name)
            if not readers:
                free.append(ref)
        return free


def handed_on(plan: Plan, transient: Transient) -> dict[str, str]:
    """Key -> site of the transient outputs that a node of another member reads: links of chains."""
    nodes, keys = plan.graph.nodes, plan.graph.keys
    return {
        keys[ref]: nodes[ref.node].site
        for step in plan.building()
        for ref in step.node.inputs.values()
        if ref.output in transient(nodes[ref.node].site)
        and nodes[ref.node].index != step.node.index
    }
