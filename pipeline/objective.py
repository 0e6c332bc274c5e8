"""The objective of a sweep: numbers of result.json by their dotted paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pipeline.errors import UserError
from pipeline.nested import is_number, leaves, number_at
from pipeline.registry import choices, nearest
from pipeline.report.section import RESULT_FIELDS, sections

SLIP = 0.93
"""How alike (difflib's ratio) a path is to a known one that it is taken to mean."""


def objective(result: Mapping[str, Any], paths: Sequence[str]) -> float | tuple[float, ...]:
    """The numbers at `paths`: one alone, or several in a tuple.

    Raises UserError for a path at which the result has no number.
    """
    values = []
    for path in paths:
        value = number_at(result, path)
        if value is None:
            known = [".".join(at) for at, leaf in leaves(likely(result)) if is_number(leaf)]
            raise UserError(
                f"objective: result.json of this job has no number at {path}",
                remedy=" ".join(
                    part for part in (nearest(path, known), f"it has {', '.join(known)}") if part
                ),
            )
        values.append(value)
    return values[0] if len(values) == 1 else tuple(values)


def check_paths(paths: Sequence[str], kinds: Collection[str] | None = None) -> None:
    """Raise UserError for a path that no result.json will have, before any job has run.

    That is one outside all of its parts, nearly the path of a number that reports know, or one
    that no stage of the graph measures, which has stages of these `kinds` (None: not known).
    """
    shown = sections()
    roots = {*RESULT_FIELDS, *(name for each in shown for name in each.mappings)}
    metrics = [metric for each in shown for metric in each.metrics]
    known = [path for metric in metrics for path in (metric.path, metric.original) if path]
    for section in () if kinds is None else shown:
        if section.measured_by and section.measured_by not in (kinds or ()):
            parts = {_part(metric.path) for metric in section.metrics}
            for path in paths:
                if _part(path) in parts:
                    raise UserError(
                        f"objective is {path!r}, which nothing in this graph measures",
                        remedy=section.unmeasured,
                    )
    for path in paths:
        close = get_close_matches(path, known, n=1, cutoff=SLIP)
        if path.split(".")[0] in roots and (path in known or not close):
            continue
        raise UserError(
            f"objective is {path!r}, at which result.json will have no number",
            remedy=choices(path, known),
        )


def _part(path: str) -> str:
    """The part of a result that one stage measures: `a.b` of its number `a.b.c`."""
    return ".".join(path.split(".")[:2])


def likely(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts of a result that a sweep is likely to be about, its quality first."""
    by_quality = sorted(sections(), key=lambda s: not any(m.role == "quality" for m in s.metrics))
    names = [name for section in by_quality for name in section.measured]
    return {name: result.get(name, {}) for name in (*names, "seconds")}
