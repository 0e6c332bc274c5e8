"""Many hostile cases of one property: a few hundred by default, thousands with `-m slow`.

The few are the same each time, so that a change is judged by what it changes; the many are new.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FEW = 300
SLOW = (pytest.mark.slow, pytest.mark.timeout(7200))


def cases(few: int = 200, many: int = 2500) -> pytest.MarkDecorator:
    """Gives a test the argument `cases`: how many to try; the few are always the same."""
    return pytest.mark.parametrize("cases", [few, pytest.param(many, marks=SLOW)])


def fuzz(count: int, strategy: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Call `check` with so many values of `strategy`; it raises where one breaks something."""

    @settings(
        max_examples=count,
        derandomize=count <= FEW,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(value=strategy)
    def each(value: Any) -> None:
        check(value)

    each()


TEXTS = ["", ".", "..", "../x", "/etc/passwd", "a\0b", "\ud800", "\x1b[2J", "²", "re:[", "re:("]
TEXTS += ["re:.*", "Linear", "torch.complex32", "nn", "x" * 300, "9" * 5000, "int", "float"]
NUMBERS = [0, 1, -1, 2, 3, 16, 2**31, 2**63, 2**64, -(2**63), 10**30, 0.5, math.nan, math.inf]
REMOVED = object()

hostile = st.recursive(
    st.sampled_from([*TEXTS, *NUMBERS, None, True, False]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3)
    ),
    max_leaves=4,
)


def mutated(sound: object, most: int = 3) -> st.SearchStrategy[Any]:
    """`sound` JSON data with some of its values replaced by hostile ones, or removed."""
    change = st.tuples(st.integers(0, 10**6), hostile | st.just(REMOVED))
    return st.lists(change, min_size=1, max_size=most).map(lambda edits: _edited(sound, edits))


def _edited(sound: object, edits: list[tuple[int, object]]) -> Any:
    whole = {"": copy.deepcopy(sound)}
    for index, value in edits:
        places = list(_places(whole))
        holder, key = places[index % len(places)]
        if value is not REMOVED:
            holder[key] = copy.deepcopy(value)
        elif holder is not whole:
            del holder[key]
    return whole[""]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value))
    for key in keys:
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])
