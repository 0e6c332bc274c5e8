"""Scatter plot of cost against quality: points, axis marks and Pareto front in SVG units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import units
from pipeline.report.section import Metric, cost_metric


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """The size of a drawing and its margins, in SVG units."""

    width: int
    height: int
    left: int = 58
    right: int = 34
    top: int = 14
    bottom: int = 40


WIDE = Frame(width=900, height=340)
NARROW = Frame(width=360, height=300)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A job of the plot, at (x, y) in SVG units."""

    number: int
    x: float
    y: float
    front: bool
    title: str
    label: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A mark of an axis: its coordinate and its label."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A drawing of a sweep. `line` has the corners of the Pareto front, empty for a single one;
    `original` is the y of the quality before the run, None if that lies outside."""

    frame: Frame
    points: Sequence[Point]
    line: str
    across: Sequence[Mark]
    up: Sequence[Mark]
    original: float | None


def plots(sweep: Mapping[str, Any]) -> list[Plot]:
    """The drawings for a wide page and for a phone; none with fewer than two points."""
    across = cost_metric()
    rows = [
        row
        for row in sweep["jobs"]
        if across and row["status"] == "ok" and None not in (row[across.field], row["quality"])
    ]
    if across is None or len(rows) < 2:
        return []
    return [_plot(sweep, rows, across, frame) for frame in (WIDE, NARROW)]


def _plot(
    sweep: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], cost: Metric, frame: Frame
) -> Plot:
    original = (sweep["original"] or {}).get("quality")
    costs = [row[cost.field] for row in rows]
    values = [row["quality"] for row in rows]
    # the original is drawn unless it would squeeze all jobs into a corner
    if original is not None and abs(original - values[0]) <= 4 * (max(values) - min(values)):
        values.append(original)
    across = ticks(*padded(costs), count=4 if frame is NARROW else 7)
    up = ticks(*padded(values), count=5)

    def x(value: float) -> float:
        least, most = padded(costs)
        return frame.left + (value - least) / (most - least) * (
            frame.width - frame.left - frame.right
        )

    def y(value: float) -> float:
        least, most = padded(values)
        return (
            frame.height
            - frame.bottom
            - (value - least) / (most - least) * (frame.height - frame.top - frame.bottom)
        )

    at = {row["number"]: (x(row[cost.field]), y(row["quality"])) for row in rows}
    corners = [at[number] for number in sweep["front"] if number in at]
    digits = 1 + max(0, math.ceil(-math.log10(up[1] - up[0]))) if len(up) > 1 else 3
    return Plot(
        frame=frame,
        points=[
            Point(
                number=row["number"],
                x=at[row["number"]][0],
                y=at[row["number"]][1],
                front=row["front"],
                title=title(row, cost, sweep["quality"]["name"]),
                label=str(row["number"]),
            )
            for row in rows
        ],
        line=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners) if len(set(corners)) > 1 else "",
        across=[Mark(at=x(value), text=cost.show(value)) for value in across],
        up=[Mark(at=y(value), text=f"{value:.{max(4, digits)}g}") for value in up],
        original=y(original) if original is not None and original in values else None,
    )


def title(row: Mapping[str, Any], cost: Metric, quality: str) -> str:
    """The tooltip of a point."""
    differs = ", ".join(f"{key}={value}" for key, value in row["differs"].items())
    return (
        f"job {row['number']}{': ' + differs if differs else ''}; "
        f"{cost.show(row[cost.field])}, {quality} {units.number(row['quality'])}"
    )


def padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of an axis: a little more than that of the values, never empty."""
    least, most = min(values), max(values)
    spread = most - least or abs(most) or 1.0
    return least - 0.06 * spread, most + 0.06 * spread


def ticks(least: float, most: float, *, count: int) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within a range."""
    raw = (most - least) / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(least / step)
    return [n * step for n in range(first, math.floor(most / step) + 1)]
