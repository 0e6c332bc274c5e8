"""The graph of a run: nodes, their named inputs and outputs, content keys, and who runs them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

from pipeline.errors import UserError
from pipeline.key import canonical, digest
from pipeline.stage import Estimate, Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Ref:
    """One named output of one node."""

    node: str
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One step of the graph: a stage kind, its semantic parameters, its named inputs.

    `site` is the entry of `graph.nodes` that it comes from, `member` the subgraph it is for
    (None where the site is a single node), `part` the part of it that this node builds (None where
    it builds all of it, or joins parts). `inputs` maps input names to outputs of other nodes.
    """

    name: str
    site: str
    kind: str
    version: int
    params: Mapping[str, Any]
    inputs: Mapping[str, Ref]
    outputs: tuple[str, ...]
    member: str | None = None
    index: int | None = None
    part: str | None = None
    estimate: Estimate = field(default=Estimate(), compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """All nodes of a run by name, in topological order.

    `stages` maps sites to the stages that run their nodes, as their surveys settled them.
    """

    nodes: Mapping[str, Node]
    keys: Mapping[Ref, str]
    targets: tuple[Ref, ...]
    stages: Mapping[str, Stage] = field(default_factory=dict, compare=False)

    @staticmethod
    def of(
        nodes: Iterable[Node], targets: Iterable[Ref], stages: Mapping[str, Stage] | None = None
    ) -> Graph:
        """Sort the nodes topologically and compute the key of every output.

        Raises UserError for an input that no node makes, and for a cycle, naming its path.
        """
        by_name = {node.name: node for node in nodes}
        for node in by_name.values():
            for name, ref in node.inputs.items():
                if ref.node not in by_name or ref.output not in by_name[ref.node].outputs:
                    raise UserError(
                        f"input {name!r} of node {node.name!r} is {ref.node}.{ref.output}, "
                        "which no node makes",
                        remedy="look at graph.nodes in the config",
                    )
        try:
            edges = {n.name: [ref.node for ref in n.inputs.values()] for n in by_name.values()}
            order = list(TopologicalSorter(edges).static_order())
        except CycleError as error:
            raise UserError(f"the graph has a cycle: {' -> '.join(error.args[1])}") from error
        keys: dict[Ref, str] = {}
        for name in order:
            keys.update(output_keys(by_name[name], keys))
        return Graph(
            nodes={name: by_name[name] for name in order},
            keys=keys,
            targets=tuple(targets),
            stages=dict(stages or {}),
        )

    def ancestors(self, name: str) -> frozenset[str]:
        """All nodes that a node follows from."""
        found, todo = set[str](), [name]
        while todo:
            new = {ref.node for ref in self.nodes[todo.pop()].inputs.values()} - found
            found |= new
            todo += new
        return frozenset(found)


def output_keys(node: Node, keys: Mapping[Ref, str]) -> dict[Ref, str]:
    """Keys of a node's outputs, given those of its inputs.

    A node's name is not part of its key: equal work under two names is done once.
    """
    identity = digest(
        {
            "kind": node.kind,
            "version": node.version,
            "params": node.params,
            "inputs": {name: keys[ref] for name, ref in node.inputs.items()},
        }
    )
    return {
        Ref(node=node.name, output=output): digest([identity, output]) for output in node.outputs
    }


def identity_of(graph: Graph, node: Node, output: str) -> dict[str, Any]:
    """What a manifest tells about how its artifact was made."""
    return {
        "kind": node.kind,
        "node": node.name,
        "output": output,
        "version": node.version,
        "params": canonical(node.params),
        "inputs": {name: graph.keys[ref] for name, ref in node.inputs.items()},
    }
