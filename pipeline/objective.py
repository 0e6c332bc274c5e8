"""A number of result.json by its dotted path: what a sweeper is told about a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.config.references import leaves
from pipeline.errors import UserError
from pipeline.registry import nearest


def number_at(result: Mapping[str, Any], path: str) -> float | None:
    """The number at `path` (`eval.perplexity.compressed`), or None where there is none."""
    value: Any = result
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def objective(result: Mapping[str, Any], paths: Sequence[str]) -> float | tuple[float, ...]:
    """The numbers at `paths`: one alone, or several in a tuple.

    Raises UserError for a path at which the result has no number.
    """
    found = []
    for path in paths:
        value = number_at(result, path)
        if value is None:
            known = [".".join(p) for p, v in leaves(numbers(result)) if number(v)]
            raise UserError(
                f"objective: result.json of this job has no number at {path}",
                remedy=" ".join(
                    part for part in (nearest(path, known), f"it has {', '.join(known)}") if part
                ),
            )
        found.append(value)
    return found[0] if len(found) == 1 else tuple(found)


def numbers(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The sections of a result that a sweep is likely to be about."""
    return {name: result.get(name, {}) for name in ("eval", "size", "seconds")}


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
