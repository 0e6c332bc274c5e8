"""Overrides written from Python values: Hydra's own parser reads the same values back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config.override_words import choices_first, words_of
from pipeline.errors import UserError

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
TRICKY = st.text("\\'\"${},=[]: ~é", max_size=12)
NAMES = st.sampled_from(["a", "b_c", "model.layers", "re:.*x(1|2)", "a/b-c[0]", "nulls"])
VALUES = st.recursive(
    PLAIN | TEXTS | TRICKY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def read(word: str) -> Any:
    return OverridesParser.create().parse_override(word).value()


@given(VALUES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_hydra_reads_every_value_as_it_was_given(value: Any) -> None:
    (word,) = words_of({"a.b": value})
    assert read(word) == value


def test_a_path_is_its_text_and_words_stay_as_they_are() -> None:
    assert read(*words_of({"model.path": Path("/a b/c'd\\")})) == "/a b/c'd\\"
    assert words_of(["scheme=w4a16", "+x=1"]) == ("scheme=w4a16", "+x=1")


def test_choices_of_groups_come_before_values() -> None:
    assert list(choices_first(["a.b=1", "model=local", "c.d=2"])) == [
        "model=local",
        "a.b=1",
        "c.d=2",
    ]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ("scheme=w4a16", "give a list"),
        ({"a": b"x"}, "a is a bytes"),
        ({"a": {"b'c": 1}}, "keys of mappings are names"),
        ({"a": {"null": 1}}, "keys of mappings are names"),
    ],
)
def test_what_no_config_can_hold_is_refused(overrides: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        words_of(overrides)
