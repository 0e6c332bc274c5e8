"""Graphs: order, keys that follow the inputs, and clear errors."""

from __future__ import annotations

import pytest

from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from tests.pipeline.graphs import chain, node


def test_each_node_follows_its_inputs() -> None:
    graph = Graph.of(reversed(chain(3)), [Ref(node="save", output="out")])
    seen: set[str] = set()
    for name, item in graph.nodes.items():
        assert {ref.node for ref in item.inputs.values()} <= seen
        seen.add(name)


def test_a_key_follows_the_keys_of_the_inputs() -> None:
    one = Graph.of([node("a", x=1), node("b", {"in": "a"})], [])
    two = Graph.of([node("a", x=2), node("b", {"in": "a"})], [])
    b = Ref(node="b", output="out")
    assert one.keys[b] != two.keys[b]


def test_a_stage_version_changes_the_key() -> None:
    ref = Ref(node="a", output="out")
    assert Graph.of([node("a")], []).keys[ref] != Graph.of([node("a", version=2)], []).keys[ref]


def test_each_output_has_a_key_of_its_own() -> None:
    graph = Graph.of([node("a", outputs=("gram", "absmax"))], [])
    assert len(set(graph.keys.values())) == 2


def test_a_cycle_is_refused_with_its_path() -> None:
    with pytest.raises(UserError, match=r"cycle: .*a.*b"):
        Graph.of([node("a", {"x": "b"}), node("b", {"x": "a"})], [])


@pytest.mark.parametrize("source", ["nowhere", "a.other"])
def test_an_input_that_nothing_makes_is_refused(source: str) -> None:
    with pytest.raises(UserError, match="which no node makes"):
        Graph.of([node("a"), node("b", {"x": source})], [])
