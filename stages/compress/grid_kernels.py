"""Rounding to a number format for compiled loops on a CPU, and how such loops are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.compress.grid import Rounding
from stages.compute.compiled import compiled as machine_code

LANES = 64  # rows of a sub-tile: a block of 128 columns of it stays in the caches of one core

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code that releases the interpreter lock."""
    return machine_code(fastmath={"contract", "reassoc", "nsz"})(function)


class Rounding32(NamedTuple):
    """:class:`stages.compress.grid.Rounding` as compiled loops take it."""

    binade: np.float32
    step: np.float32
    low: np.float32
    high: np.float32


def as_float32(rounding: Rounding) -> Rounding32:
    """The rounding with every value as float32."""
    return Rounding32(*map(np.float32, rounding))


@compiled
def rounded(x: np.float32, grid: Rounding32) -> np.float32:
    """:func:`stages.compress.grid.round_to` for one float32."""
    x = min(max(x, grid.low), grid.high)
    bits = np.int32(np.float32(x).view(np.int32) & np.int32(0x7F800000))
    unit = max(bits.view(np.float32), grid.binade) * grid.step
    return np.float32(np.rint(x / unit) * unit)
