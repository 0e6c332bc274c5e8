"""Nested plain data: dotted paths, all scalars with their paths, the number at a path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Path = tuple[str, ...]
"""The steps from the root of nested data to a value in it."""


def leaves(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every scalar below `value` with its path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, (*path, str(name)))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, str(index)))
    else:
        yield path, value


def number_at(data: Mapping[str, Any], path: str) -> float | None:
    """The number at a dotted path (`timings.save.seconds`), or None where there is none."""
    value: Any = data
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return None
        value = value[step]
    return float(value) if is_number(value) else None


def is_number(value: object) -> bool:
    """Whether `value` is an int or a float; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)
