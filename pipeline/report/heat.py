"""The heat map of a model's layers: decoder layers across, their modules down."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_INDEX = re.compile(r"^(?P<before>.*?\.)(?P<index>\d+)\.(?P<module>.+)$")
_EXPERT = re.compile(r"(experts)\.\d+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One module of one layer; `strength` in [0, 1] is its place between the least and the most."""

    index: int
    value: float
    strength: float
    title: str


NOTICEABLE = 0.01
"""Values that differ by less, relative to the largest, get one shade."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeatMap:
    """`rows` maps a module's name within its layer to its cells; `layers` counts the columns."""

    rows: Mapping[str, Sequence[Cell]]
    layers: int
    least: float
    most: float


def heat_map(layers: Sequence[Mapping[str, Any]], value: str) -> HeatMap | None:
    """A map of the field `value` of result.json's `layers`; None where no layer has it.

    Experts of a layer share a cell, which shows the largest value among them. Modules outside
    numbered layers have no column and are left out.
    """
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in layers:
        place = _place(row["name"])
        if place is None or row.get(value) is None:
            continue
        if place not in found or found[place][value] < row[value]:
            found[place] = row
    if not found:
        return None
    values = [float(row[value]) for row in found.values()]
    least, most = min(values), max(values)
    # a few bytes of bookkeeping in a small module must not look like another precision
    apart = most - least > NOTICEABLE * abs(most)
    rows: dict[str, list[Cell]] = {}
    for (module, index), row in found.items():
        rows.setdefault(module, []).append(
            Cell(
                index=index,
                value=row[value],
                strength=(row[value] - least) / (most - least) if apart else 0.5,
                title=_title(row),
            )
        )
    return HeatMap(rows=rows, layers=max(index for _, index in found) + 1, least=least, most=most)


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
