"""Multiple-choice knapsack: one option for every unit, with the least damage within a size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array

GAP = 1e-3
"""Relative distance to the least damage at which the search may stop: smaller than the accuracy of
damages, and reached in seconds for any model (1e-6 takes minutes where many units are alike)."""

TOLERANCE = 1e-6
"""Relative amount by which the solver's answer may exceed the room."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One format for a unit: its size in bytes, and its damage (0 or more, in any unit)."""

    name: str
    size: int
    damage: float


def choose(units: Sequence[Sequence[Option]], room: float) -> list[Option]:
    """One option for every unit, with the least sum of damages among those of size <= `room`.

    Solved as an integer program by HiGHS. Raises ValueError if even the smallest do not fit.
    """
    smallest = [min(options, key=lambda o: (o.size, o.damage)) for options in units]
    if sum(option.size for option in smallest) > room:
        raise ValueError(f"the smallest options do not fit into {room}")
    for slack in (0.0, 2 * TOLERANCE):
        taken = _solved(units, room * (1 - slack))
        if taken is not None and sum(option.size for option in taken) <= room:
            return taken
    return smallest


def _solved(units: Sequence[Sequence[Option]], room: float) -> list[Option] | None:
    """The solver's answer, which may exceed `room` by its tolerance; None if it has none."""
    flat = [(row, option) for row, options in enumerate(units) for option in options]
    sizes = np.array([option.size for _, option in flat], dtype=np.float64)
    damages = np.array([option.damage for _, option in flat], dtype=np.float64)
    count = len(flat)
    rows = np.array([row for row, _ in flat])
    each = coo_array((np.ones(count), (rows, np.arange(count))), shape=(len(units), count))
    found = milp(
        # both scaled to about one: the tolerances of the solver are absolute
        damages / (damages.max(initial=0.0) or 1.0),
        constraints=[
            LinearConstraint(each.tocsr(), 1, 1),
            LinearConstraint(sizes[None] / room, -np.inf, 1),
        ],
        integrality=np.ones(count),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": GAP},
    )
    if found.x is None:
        return None
    taken = [option for (_, option), x in zip(flat, found.x, strict=True) if x > 0.5]
    return taken if len(taken) == len(units) else None
