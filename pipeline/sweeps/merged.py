"""Graphs of several jobs as one: what several need is one node of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pipeline.graph import Graph, Node, Ref
from pipeline.stage import Stage


def merged(graphs: Sequence[Graph]) -> Graph:
    """One graph with the targets of all; nodes are equal if their first outputs have one key.

    A node keeps its name, and its site, in the first graph that has it; those that a later graph
    adds are named after it: `solve@2[0]` is the `solve[0]` of the third.
    """
    known: dict[str, str] = {}
    nodes: list[Node] = []
    stages: dict[str, Stage] = {}
    targets: dict[Ref, None] = {}
    for number, graph in enumerate(graphs):
        names: dict[str, str] = {}
        for name, node in graph.nodes.items():
            key = graph.keys[Ref(node=name, output=node.outputs[0])]
            if key not in known:
                site = f"{node.site}@{number}" if number else node.site
                known[key] = site + name.removeprefix(node.site)
                stages[site] = graph.stages[node.site]
                nodes.append(_renamed(node, known[key], site, names))
            names[name] = known[key]
        targets |= {Ref(node=names[ref.node], output=ref.output): None for ref in graph.targets}
    return Graph.of(nodes, targets, stages)


def _renamed(node: Node, name: str, site: str, names: dict[str, str]) -> Node:
    """A node by other names: its own, and those of the nodes that it reads."""
    inputs = {
        label: Ref(node=names[ref.node], output=ref.output) for label, ref in node.inputs.items()
    }
    return replace(node, name=name, site=site, inputs=inputs)
