"""Union of what the jobs of a sweep want of nodes that several of them have.

Two jobs may need different outputs of one node, such as different sums over the same
inputs. Whichever of them runs it first makes the outputs of both in one go.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.graph import Graph, Ref
from pipeline.planning.plan import make_plan
from pipeline.runner.schedule import transient_outputs
from pipeline.store import Store


@dataclass(slots=True)
class Union:
    """Outputs to be built and stored, by store and node, of the jobs that were added.

    A node is told by the key of its first output, which follows from all that the others do.
    """

    wanted: dict[tuple[str, str], list[frozenset[str]]] = field(default_factory=dict)

    def add(self, graph: Graph, store: Store, *, keep: bool) -> None:
        """Add one job. Transient results, which it drops, are no good to others unless `keep`."""
        plan = make_plan(graph, store.has)
        transient = transient_outputs(graph, keep=keep)
        mine: dict[str, set[str]] = {}
        for step in plan.building():
            node = step.node
            keys = {
                output: graph.keys[Ref(node=node.name, output=output)] for output in node.outputs
            }
            stored = set(step.missing) - transient(node.site)
            mine.setdefault(keys[node.outputs[0]], set()).update(keys[o] for o in stored)
        for first, keys_of_job in mine.items():
            self.wanted.setdefault((str(store.root), first), []).append(frozenset(keys_of_job))

    def shared(self) -> tuple[str, ...]:
        """Keys that some of the jobs that have their node want, and others do not; sorted."""
        found = set[str]()
        for wants in self.wanted.values():
            found |= frozenset.union(*wants) - frozenset.intersection(*wants)
        return tuple(sorted(found))
