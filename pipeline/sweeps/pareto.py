"""The Pareto front of a sweep, and the metric that ranks its jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

from pipeline.report.section import Direction, Metric, cost_metric, quality_metrics


def measure(path: str, direction: str = "") -> Metric:
    """The metric at a path of result.json; without a direction, the known one's or `minimize`.

    The value before the run of one that no section registers is sought at `.original` for a path
    with `.compressed`.
    """
    known = next((metric for metric in quality_metrics() if metric.path == path), None)
    if known is None:
        original = path.replace(".compressed", ".original")
        known = Metric(
            field="", path=path, title=path, original=original if original != path else ""
        )
    if direction in ("minimize", "maximize"):
        return dataclasses.replace(known, direction=cast(Direction, direction))
    return known


def quality(
    results: Sequence[Mapping[str, Any]], objective: Sequence[str], directions: Sequence[str]
) -> Metric | None:
    """The metric that ranks the jobs: the first objective that is no cost, or what most jobs have.

    Of registered metrics that equally many jobs have, the first counts.
    """
    across = cost_metric()
    for place, path in enumerate(objective):
        if across is None or _part(path) != _part(across.path):
            return measure(path, directions[place] if place < len(directions) else "")
    known = quality_metrics()
    counts = [sum(each.of(result) is not None for result in results) for each in known]
    return known[counts.index(max(counts))] if any(counts) else None


def _part(path: str) -> str:
    """The part of result.json that a path leads into."""
    return path.partition(".")[0]


def front(points: Mapping[int, tuple[float, float]], by: Metric) -> list[int]:
    """Jobs of the Pareto front, by cost: (cost, quality) that no other point beats.

    A point is off the front if another is at least as good in both and better in one; equal
    points are on it together.
    """

    def beaten(point: tuple[float, float]) -> bool:
        return any(
            spent <= point[0]
            and not by.better(point[1], value)
            and (spent < point[0] or by.better(value, point[1]))
            for spent, value in points.values()
        )

    return sorted((job for job in points if not beaten(points[job])), key=lambda job: points[job])
