"""The knapsack: never worse than trying every combination."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.choose.knapsack import GAP, Option, choose

OPTIONS = st.lists(
    st.builds(
        Option,
        name=st.just("any"),
        size=st.integers(1, 10**9),
        damage=st.floats(0, 1e6, allow_subnormal=False),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=25, deadline=None)
@given(units=st.lists(OPTIONS, min_size=1, max_size=5), share=st.floats(0, 1))
def test_no_combination_within_the_room_does_better(
    units: list[list[Option]], share: float
) -> None:
    least = sum(min(o.size for o in options) for options in units)
    most = sum(max(o.size for o in options) for options in units)
    room = least + share * (most - least)
    taken = choose(units, room)
    assert all(option in options for option, options in zip(taken, units, strict=True))
    assert sum(option.size for option in taken) <= room
    best = min(
        sum(o.damage for o in combination)
        for combination in product(*units)
        if sum(o.size for o in combination) <= room
    )
    largest = max(o.damage for options in units for o in options)
    assert sum(o.damage for o in taken) <= best * (1 + 2 * GAP) + 1e-6 * largest


def test_room_for_less_than_the_smallest_options_is_refused() -> None:
    units = [[Option(name="a", size=10, damage=1.0)], [Option(name="b", size=5, damage=1.0)]]
    with pytest.raises(ValueError, match="do not fit"):
        choose(units, 14)
