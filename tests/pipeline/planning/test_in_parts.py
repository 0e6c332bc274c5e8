"""Nodes that are built in parts, and the node that joins them."""

from __future__ import annotations

from pipeline.graph import Graph, Ref
from pipeline.planning.in_parts import in_parts
from pipeline.stage import Estimate, Parts
from tests.pipeline.graphs import node

GIVEN = {"weights": "load", "statistics": "measure[0].gram"}
PARTS = Parts(
    names={None: ("left", "right")},
    joining=frozenset({"weights"}),
    estimates={(None, "left"): Estimate(seconds=3)},
)


def expanded(parts: Parts) -> Graph:
    nodes = [node("load"), node("measure[0]", outputs=("gram",)), *in_parts(whole(), parts)]
    return Graph.of(nodes, [Ref(node="solve[0]", output="out")])


def whole() -> list:
    return [node("solve[0]", GIVEN, index=0, layer=0)]


def test_each_part_is_a_node_with_all_inputs_and_the_join_reads_them() -> None:
    graph = expanded(PARTS)
    left, right, join = (
        graph.nodes[n] for n in ("solve.parts[0.0]", "solve.parts[0.1]", "solve[0]")
    )
    assert left.inputs == right.inputs == whole()[0].inputs
    assert (left.part, right.part, join.part) == ("left", "right", None)
    assert left.site == "solve.parts" and join.site == "solve" and left.index == 0
    assert left.estimate.seconds == 3
    assert {label: ref.node for label, ref in join.inputs.items()} == {
        "weights": "load",
        "parts/0": "solve.parts[0.0]",
        "parts/1": "solve.parts[0.1]",
    }


def test_keys_of_parts_differ_by_their_names_and_a_whole_node_keeps_its_key() -> None:
    def key(parts: Parts, name: str) -> str:
        return expanded(parts).keys[Ref(node=name, output="out")]

    other = Parts(names={None: ("left", "rest")}, joining=PARTS.joining)
    nothing = Parts(names={}, joining=PARTS.joining)
    assert key(PARTS, "solve.parts[0.0]") == key(other, "solve.parts[0.0]")
    assert key(PARTS, "solve.parts[0.1]") != key(other, "solve.parts[0.1]")
    assert len({key(each, "solve[0]") for each in (PARTS, other, nothing)}) == 3
    nodes = [node("load"), node("measure[0]", outputs=("gram",)), *whole()]
    plain = Graph.of(nodes, [Ref(node="solve[0]", output="out")])
    assert key(nothing, "solve[0]") == plain.keys[Ref(node="solve[0]", output="out")]
