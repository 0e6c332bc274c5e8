"""The order in which ready nodes run: layer by layer, the furthest along first."""

from __future__ import annotations

import heapq
from graphlib import TopologicalSorter

from pipeline.plan import Plan


class ReadyQueue:
    """Nodes of a plan whose inputs are all there.

    A node for layer k comes before one for layer k+1, and within a layer the later stage comes
    first, so that a finished layer is committed as early as possible and its activations can go.
    """

    def __init__(self, plan: Plan) -> None:
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
        self._heap: list[tuple[float, int, str]] = []
        self._fill()

    def pop(self) -> str | None:
        """The next node to start, or None while nothing is ready."""
        return heapq.heappop(self._heap)[2] if self._heap else None

    def done(self, name: str) -> None:
        self._sorter.done(name)
        self._fill()

    def active(self) -> bool:
        """Whether any node has still to start or to finish."""
        return bool(self._heap) or self._sorter.is_active()

    def _fill(self) -> None:
        for name in self._sorter.get_ready():
            index = self._nodes[name].index
            layer = float("inf") if index is None else float(index)
            heapq.heappush(self._heap, (layer, -self._position[name], name))
