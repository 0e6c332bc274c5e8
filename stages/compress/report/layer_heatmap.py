"""The heat map of a model's layers: decoder layers across, their modules down."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_INDEX = re.compile(r"^(?P<before>.*?\.)(?P<index>\d+)\.(?P<module>.+)$")
_EXPERT = re.compile(r"(experts)\.\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One module of one layer; `strength` in [0, 1] is its place between the least and the most.

    `row` is what stands behind it, and `count` how many modules share the cell.
    """

    index: int
    value: float
    strength: float
    title: str
    row: Mapping[str, Any]
    count: int


NOTICEABLE = 0.01
"""Values that differ by less, relative to the largest, get one shade."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """`rows` maps a module's name within its layer to its cells; `layers` counts the columns."""

    rows: Mapping[str, Sequence[Cell]]
    layers: int
    least: float
    most: float


def heat_map(
    layers: Sequence[Mapping[str, Any]],
    value: str,
    *,
    logarithmic: bool = False,
) -> HeatMap | None:
    """A map of the field `value` of result.json's `layers`; None where no layer has it.

    Experts of a layer share a cell, which shows the largest value among them. Modules outside
    numbered layers have no column and are left out. `logarithmic` shades by ratios (zero gets the
    least shade).
    """
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    counts: Counter[tuple[str, int]] = Counter()
    for row in layers:
        place = _place(row["name"])
        if place is None or row.get(value) is None:
            continue
        counts[place] += 1
        if place not in found or found[place][value] < row[value]:
            found[place] = row
    if not found:
        return None
    values = [float(row[value]) for row in found.values()]
    least, most = min(values), max(values)
    if logarithmic:
        least = min((each for each in values if each > 0), default=0.0)
    shade = _shades(least, most, logarithmic=logarithmic)
    rows: dict[str, list[Cell]] = {}
    for place, row in found.items():
        rows.setdefault(place[0], []).append(
            Cell(
                index=place[1],
                value=row[value],
                strength=shade(float(row[value])),
                title=_title(row),
                row=row,
                count=counts[place],
            )
        )
    return HeatMap(rows=rows, layers=max(index for _, index in found) + 1, least=least, most=most)


def _shades(least: float, most: float, *, logarithmic: bool) -> Callable[[float], float]:
    """From a value to its place between the least and the most, in [0, 1]."""
    # a few bytes of bookkeeping in a small module must not look like another precision
    if not most - least > NOTICEABLE * abs(most):
        return lambda value: 0.5
    if logarithmic and least > 0:
        span = math.log(most / least)
        return lambda value: min(1.0, math.log(max(value, least) / least) / span)
    return lambda value: (value - least) / (most - least)


def _place(name: str) -> tuple[str, int] | None:
    """("self_attn.q_proj", 3) for `model.layers.3.self_attn.q_proj`."""
    match = _INDEX.match(name)
    if match is None:
        return None
    return _EXPERT.sub(r"\1.*", match["module"]), int(match["index"])


def _title(row: Mapping[str, Any]) -> str:
    parts = [row["name"]]
    if row.get("relative_error") is not None:
        parts.append(f"relative error {row['relative_error']:.3g}")
    if row.get("bits") is not None:
        parts.append(f"{row['bits']:.3g} bits")
    parts += [str(row[name]) for name in ("scheme", "solver") if row.get(name)]
    if row.get("fallback"):
        parts.append(f"fallback: {row['fallback']}")
    return ", ".join(parts)
