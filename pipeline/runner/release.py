"""Which transient results can go, as the nodes that read them finish."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.graph import Ref
from pipeline.plan import Plan


class Releases:
    """Counts the readers of each transient output of a plan.

    `transient` gives, by site, the outputs that are not worth keeping. The result that nobody has
    read yet is always kept: it is where a killed run goes on.
    """

    def __init__(self, plan: Plan, transient: Callable[[str], frozenset[str]]) -> None:
        self._readers: dict[Ref, set[str]] = {}
        nodes = plan.graph.nodes
        for step in plan.building():
            for ref in step.node.inputs.values():
                if ref.output in transient(nodes[ref.node].site):
                    self._readers.setdefault(ref, set()).add(step.node.name)
        self._inputs: Mapping[str, tuple[Ref, ...]] = {
            step.node.name: tuple(step.node.inputs.values()) for step in plan.building()
        }

    def finished(self, name: str) -> list[Ref]:
        """Note that a node is done; returns the outputs that no node has to read any more."""
        free = []
        for ref in self._inputs[name]:
            readers = self._readers.get(ref)
            if readers is None:
                continue
            readers.discard(name)
            if not readers:
                del self._readers[ref]
                free.append(ref)
        return free
