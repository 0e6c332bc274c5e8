"""Tokens that do not count in statistics: ids on their way are marked by their bits inverted.

So that windows, choices and padding need not know of them; at the end ids and marks are separated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.tokens.windows import Ids


def not_counted(id: int) -> int:
    """The mark of a token that does not count; negative, and its own inverse."""
    return ~id


def last_counted(ids: Ids, stride: int) -> Ids:
    """A window [T] of which all but the last `stride` tokens do not count."""
    before = np.arange(len(ids)) < len(ids) - stride
    return np.where(before & (ids >= 0), ~ids, ids)


def separated(marked: Ids) -> tuple[Ids, NDArray[np.uint8]]:
    """Ids int32 and marks uint8 (1: counts), both of the shape of `marked`."""
    return np.where(marked < 0, ~marked, marked), (marked >= 0).astype(np.uint8)
