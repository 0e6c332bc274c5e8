"""Keys: the same for the same meaning, different for every semantic difference."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.key import WHEN_SET, canonical, digest

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
FINITE = LEAVES.filter(lambda x: not (isinstance(x, float) and x in (float("inf"), -float("inf"))))
JSON = st.recursive(FINITE, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=12)


@dataclass(frozen=True, kw_only=True, slots=True)
class Params:
    bits: int = 4
    damping: float = 0.01
    order: str = "static"
    workers: int = field(default=1, metadata={"key": False})


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(list(value))}
    if isinstance(value, list):
        return [shuffled(item) for item in value]
    return value


@given(JSON)
def test_dict_order_does_not_change_a_key(value: Any) -> None:
    assert digest(value) == digest(shuffled(value))


@given(st.lists(st.integers(), min_size=2, unique=True))
def test_list_order_changes_a_key(items: list[int]) -> None:
    assert digest(items) != digest(list(reversed(items)))


@pytest.mark.parametrize(("name", "other"), [("bits", 8), ("damping", 0.02), ("order", "none")])
def test_every_semantic_field_changes_a_key(name: str, other: Any) -> None:
    assert digest(Params()) != digest(replace(Params(), **{name: other}))


def test_a_field_marked_as_no_part_of_the_key_does_not_change_it() -> None:
    assert digest(Params(workers=1)) == digest(Params(workers=8))
    assert "workers" not in canonical(Params())
    assert {f.name for f in fields(Params)} - set(canonical(Params())) == {"workers"}


@dataclass(frozen=True, kw_only=True)
class Later(Params):
    exact: bool = field(default=True, metadata={"key": WHEN_SET})


def test_an_option_that_came_later_is_in_the_key_where_it_is_not_its_default() -> None:
    assert digest(Later()) == digest(Params())
    assert canonical(Later(exact=False)) == {**canonical(Params()), "exact": False}


def test_true_and_one_are_different() -> None:
    assert digest(True) != digest(1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_has_no_stable_text_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="cannot be part of a key"):
        digest(value)
