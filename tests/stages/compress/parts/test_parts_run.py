"""The order of modules in a layer that is joined from its parts."""

from __future__ import annotations

from stages.compress.parts.parts_run import solving_order


def test_a_batch_is_solved_where_its_first_module_stands() -> None:
    batches = {"q_a": "x", "q_b": "y", "kv_a": "x", "kv_b": "z"}
    assert solving_order(batches, batches) == ["q_a", "kv_a", "q_b", "kv_b"]


def test_modules_of_no_batch_come_first_in_the_order_of_the_layer() -> None:
    assert solving_order(("a", "b", "c", "d"), {"a": "x", "c": "x"}) == ["b", "d", "a", "c"]
