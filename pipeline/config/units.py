"""Sizes and times as people write them: `8GB`, `1.5GiB`, `15min`, `1h30min`."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BYTES = {
    "": 1,
    "b": 1,
    **{unit + end: 1000**power for power, unit in enumerate("kmgtp", 1) for end in ("", "b")},
    **{unit + end: 1024**power for power, unit in enumerate("kmgtp", 1) for end in ("i", "ib")},
}
_SECONDS = {
    "": 1,
    "s": 1,
    "sec": 1,
    "m": 60,
    "min": 60,
    "h": 3600,
    "d": 86400,
}
UNITS: Mapping[str, Mapping[str, int]] = {"bytes": _BYTES, "seconds": _SECONDS}
EXAMPLES: Mapping[str, str] = {"bytes": "8GB, 512MiB", "seconds": "90, 15min, 1h30min"}
"""What `metadata={"unit": ...}` of a field may be, and what can be written there."""

_PART = re.compile(r"\s*(\d[\d_]*(?:\.\d*)?)\s*([a-zA-Z]*)", re.ASCII)


def number_of(text: str, unit: str) -> float | None:
    """The number of bytes or seconds that a text names; None where it names none.

    k, M, G, T, P are powers of 1000, Ki, Mi, Gi, Ti, Pi of 1024, in any case of letters. Only times
    have several parts.
    """
    total, at, units = 0.0, 0, UNITS[unit]
    while at < len(text) or not at:
        part = _PART.match(text, at)
        name = part[2].lower() if part else ""
        if part is None or name not in units or (at and (unit == "bytes" or not name)):
            return None
        total += float(part[1].replace("_", "")) * units[name]
        at = part.end()
        if not text[at:].strip():
            return total
    return None
