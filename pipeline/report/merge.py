"""Putting together what several stages said about one result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError


class Conflict(UserError):
    """Two stages said different things in the same place of result.json."""


def merge(into: dict[str, Any], fragment: Mapping[str, Any], path: str = "") -> None:
    """Merge `fragment` into `into`: dicts by key, lists one after the other.

    Equal scalars may meet; raises Conflict where different ones do, or where kinds differ.
    """
    for name, value in fragment.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            own = into.setdefault(name, {})
            if not isinstance(own, dict):
                raise Conflict(f"{here} is {own!r} and also a mapping")
            merge(own, value, here)
        elif isinstance(value, list):
            own = into.setdefault(name, [])
            if not isinstance(own, list):
                raise Conflict(f"{here} is {own!r} and also a list")
            own.extend(value)
        elif into.setdefault(name, value) != value:
            raise Conflict(f"{here} is {into[name]!r} and also {value!r}")
