"""Size against quality: which number is quality, and which jobs no other one beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.objective import number_at

Direction = Literal["minimize", "maximize"]

SIZE = "size.compressed_bytes"
ORIGINAL_SIZE = "size.original_bytes"
ERROR = "layers.relative_error"
"""The mean over the layers of a result, for runs without evaluation."""

KNOWN: dict[str, tuple[str, Direction]] = {
    "eval.perplexity.compressed": ("perplexity", "minimize"),
    "eval.kl": ("KL divergence", "minimize"),
    "eval.top1_agreement": ("top-1 agreement", "maximize"),
    ERROR: ("mean relative error", "minimize"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """A number of result.json (`path`), and which way is better."""

    path: str
    name: str
    direction: Direction

    def of(self, result: Mapping[str, Any]) -> float | None:
        return relative_error(result) if self.path == ERROR else number_at(result, self.path)

    def better(self, one: float, other: float) -> bool:
        return one < other if self.direction == "minimize" else one > other


def measure(path: str, direction: str = "") -> Measure:
    """The measure at a path; a direction that is not said is that of a known one, or down."""
    name, usual = KNOWN.get(path, (path, "minimize"))
    chosen: Direction = usual
    if direction in ("minimize", "maximize"):
        chosen = "maximize" if direction == "maximize" else "minimize"
    return Measure(path=path, name=name, direction=chosen)


def quality(
    results: Sequence[Mapping[str, Any]], objective: Sequence[str], directions: Sequence[str]
) -> Measure | None:
    """What the leaderboard is about: the objective if it is no size, or what most jobs know.

    Of known measures that equally many jobs have, the first of `KNOWN` counts.
    """
    for place, path in enumerate(objective):
        if not path.startswith("size."):
            return measure(path, directions[place] if place < len(directions) else "")
    known = [measure(path) for path in KNOWN]
    counts = [sum(each.of(result) is not None for result in results) for each in known]
    return known[counts.index(max(counts))] if any(counts) else None


def relative_error(result: Mapping[str, Any]) -> float | None:
    """Mean relative error of the layers of a result (no unit), None where there is none."""
    errors = [
        row["relative_error"]
        for row in result.get("layers", ())
        if row.get("relative_error") is not None
    ]
    return sum(errors) / len(errors) if errors else None


def front(points: Mapping[int, tuple[float, float]], by: Measure) -> list[int]:
    """Jobs of the Pareto front, by size: (size, quality) that no other point beats.

    A point is off the front if another is at least as good in both and better in one; equal
    points are on it together.
    """

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            size <= point[0]
            and not by.better(point[1], value)
            and (size < point[0] or by.better(value, point[1]))
            for size, value in points.values()
        )

    return sorted((job for job in points if not beaten(points[job])), key=lambda job: points[job])
