from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import build
from pipeline.errors import ManyErrors, UserError
from pipeline.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    size: int
    path: str | None = None
    rate: float = 1.0
    on: bool = False
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"size is {self.size}", remedy="give 1 or more")
        if self.rate > 9:
            raise ManyErrors([UserError("too fast"), UserError("far too fast")])


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    inner: Inner
    maybe: Inner | None = None
    named: dict[str, Inner] = field(default_factory=dict)
    listed: list[Inner] = field(default_factory=list)
    either: int | str = 0
    free: dict[str, Any] = field(default_factory=dict)
    part: Any = field(default=None, metadata={"component": "dataset"})
    parts: Any = field(default=(), metadata={"components": "modifier"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Tagged:
    kind: str
    size: int = 1


class WithConfig:
    Config = Inner

    def __init__(self, config: Inner) -> None:
        self.config = config


REGISTRY = Registry(
    {"dataset": {"inner": Inner, "tagged": Tagged, "with": WithConfig}, "modifier": {"a": Inner}}
)


def built(data: Any, **options: Any) -> Any:
    return build(Outer, data, "here", REGISTRY, **options)


def errors(data: Any, **options: Any) -> list[str]:
    with pytest.raises(UserError) as caught:
        built(data, **options)
    found = caught.value
    return [str(e) for e in (found.errors if isinstance(found, ManyErrors) else (found,))]


def test_nested_values_arrive_typed() -> None:
    made = built(
        {
            "inner": {"size": "64", "rate": 2, "names": ["a"]},
            "maybe": None,
            "named": {"x": {"size": 2}},
            "listed": [{"size": 3}],
            "either": "text",
            "free": {"any": [1, {"thing": None}]},
        }
    )
    assert made.inner == Inner(size=64, rate=2.0, names=["a"])
    assert made.maybe is None
    assert made.named == {"x": Inner(size=2)}
    assert made.listed == [Inner(size=3)]
    assert made.either == "text"
    assert made.free == {"any": [1, {"thing": None}]}


def test_components_are_built_by_kind_and_keep_their_order() -> None:
    parts = {"z": {"kind": "a", "size": 1}, "a": {"kind": "a", "size": 2}}
    made = built({"inner": {"size": 1}, "part": {"kind": "tagged", "size": 5}, "parts": parts})
    assert made.part == Tagged(kind="tagged", size=5)
    assert [part.size for part in made.parts] == [1, 2]
    assert built({"inner": {"size": 1}, "parts": None}).parts == ()


def test_a_component_class_may_have_its_schema_beside_it() -> None:
    made = built({"inner": {"size": 1}, "part": {"kind": "with", "size": 5}})
    assert made.part.config == Inner(size=5)


def test_an_unknown_key_is_told_with_its_path_and_the_nearest_name() -> None:
    assert errors({"inner": {"size": 1, "sise": 2}}) == [
        "here.inner.sise: there is no such key\n"
        "  did you mean size? the keys of here.inner are size, path, rate, on, names"
    ]


def test_all_problems_come_at_once() -> None:
    told = errors(
        {
            "inner": {"size": "many", "on": "perhaps", "extra": 1},
            "named": {"x": {"size": 0}},
            "part": {"kind": "iner"},
            "free": 3,
        }
    )
    text = "\n".join(told)
    assert len(told) == 6
    assert "here.inner.size is 'many', which is not a whole number" in text
    assert "here.inner.on is 'perhaps', which is not true or false" in text
    assert "here.inner.extra" in text
    assert "here.named.x.size is 0\n  give 1 or more" in text
    assert "here.part.kind: there is no dataset of kind 'iner'\n  did you mean inner?" in text
    assert "here.free is 3, which is not a mapping" in text


def test_a_wrong_value_is_told_beside_an_unknown_key() -> None:
    told = errors({"inner": {"size": 0, "typo": 1}})
    assert [text.split("\n")[0] for text in told] == [
        "here.inner.typo: there is no such key",
        "here.inner.size is 0",
    ]


@pytest.mark.parametrize("data", [{}, {"size": "???"}])
def test_a_missing_value_says_how_to_give_it(data: dict[str, Any]) -> None:
    assert errors({"inner": data}) == ["here.inner.size is missing\n  give here.inner.size=VALUE"]


def test_several_rejections_of_one_object_all_get_its_path() -> None:
    assert errors({"inner": {"size": 1, "rate": 10}}) == [
        "here.inner: too fast",
        "here.inner: far too fast",
    ]


def test_paths_are_told_as_the_user_wrote_them() -> None:
    renamed = errors(
        {"inner": {"size": 0, "tpyo": 1}}, told_as=lambda path: path.replace("here.inner", "mine")
    )
    assert renamed[0].startswith("mine.tpyo: there is no such key")
    assert "the keys of mine are" in renamed[0]
    assert renamed[1].startswith("mine.size is 0")


@pytest.mark.parametrize("data", [None, 3, "text", [1]])
def test_something_else_where_a_mapping_belongs_is_refused(data: Any) -> None:
    assert "where a mapping belongs" in errors({"inner": data})[0]


@given(st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text()))
def test_whatever_the_keys_are_it_is_built_or_told(data: dict[str, Any]) -> None:
    if set(data) <= {"size", "path", "rate", "on", "names"} and "size" in data:
        return
    with pytest.raises(UserError):
        build(Inner, data, "x")


@given(size=st.integers(min_value=1, max_value=2**60), rate=st.floats(0, 9))
def test_what_is_written_comes_back(size: int, rate: float) -> None:
    assert build(Inner, {"size": size, "rate": rate}) == Inner(size=size, rate=rate)
