"""Content keys: the sha256 of everything that a result depends on, as canonical JSON."""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

Json = Any
"""Plain JSON data: None, bool, int, float, str, lists and string-keyed dicts of these."""

WHEN_SET = "when set"
"""Marks an option (`metadata={"key": WHEN_SET}`) that keys hold where it is not its default only.

For one that came later: results of before it stay valid.
"""


def canonical(value: object) -> Json:
    """Reduce `value` to plain JSON data in which equal meanings are equal data.

    Dataclasses become dicts without the fields marked `metadata={"key": False}`, and those marked
    `WHEN_SET` while they have their default; a function given there says what of the field's value
    counts. Tuples become lists, enums their values. Raises
    TypeError for anything without a stable representation.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise TypeError(f"{value} cannot be part of a key")
        return value
    if isinstance(value, enum.Enum):
        return canonical(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (field for field in dataclasses.fields(value) if _is_kept(field, value))
        return {field.name: canonical(_counted(field, value)) for field in kept}
    if isinstance(value, Mapping):
        return {str(name): canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")


def _is_kept(field: dataclasses.Field[Any], value: object) -> bool:
    """Whether a field is part of a key."""
    part = field.metadata.get("key", True)
    if part == WHEN_SET:
        return bool(getattr(value, field.name) != field.default)
    return bool(part)


def _counted(field: dataclasses.Field[Any], value: object) -> Any:
    """What of a field's value is part of a key."""
    whole, part = getattr(value, field.name), field.metadata.get("key", True)
    return part(whole) if callable(part) else whole


def digest(value: object) -> str:
    """The key of `value`: 64 hex digits, the same for equal data in any dict order."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
