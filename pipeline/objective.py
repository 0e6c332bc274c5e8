"""The objective of a sweep: numbers of result.json by their dotted paths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UserError
from pipeline.nested import is_number, leaves, number_at
from pipeline.registry import nearest
from pipeline.report.section import sections


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


def likely(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts of a result that a sweep is likely to be about, its quality first."""
    by_quality = sorted(sections(), key=lambda s: not any(m.role == "quality" for m in s.metrics))
    names = [name for section in by_quality for name in section.measured]
    return {name: result.get(name, {}) for name in (*names, "seconds")}
