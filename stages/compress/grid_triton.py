"""Rounding to a number format for Triton kernels, and how kernels are launched.

Divisions are IEEE ones and no product that decides a code is ever rounded: it is one by a power of
two, or there is none. So it does not matter whether a compiler contracts it with a sum.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stages.compress.grid import Rounding


@triton.jit
def rint(x):
    """Nearest integer, ties to even; the sign of what becomes zero is kept."""
    size = tl.abs(x)
    size = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size)  # 2**23
    sign = x.to(tl.int32, bitcast=True) & -2147483648
    return (size.to(tl.int32, bitcast=True) | sign).to(tl.float32, bitcast=True)


@triton.jit
def _clamped(x, low, high):
    x = tl.maximum(x, low, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(x, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _unit(x, binade, step):
    power = (x.to(tl.int32, bitcast=True) & 0x7F800000).to(tl.float32, bitcast=True)
    return tl.maximum(power, binade) * step


@triton.jit
def rounded(x, binade, step, low, high):
    """:func:`stages.compress.grid.round_to` for float32, whatever the rounding."""
    x = _clamped(x, low, high)
    unit = _unit(x, binade, step)
    return rint(tl.div_rn(x, unit)) * unit


@triton.jit
def rounded_code(x, binade, step, low, high):
    """:func:`rounded` without a division, where all steps are normal floats: for all codes."""
    x = _clamped(x, low, high)
    unit = _unit(x, binade, step)
    inverse = (0x7F000000 - unit.to(tl.int32, bitcast=True)).to(tl.float32, bitcast=True)
    return rint(x * inverse) * unit


def as_scalars(rounding: Rounding) -> tuple[float, float, float, float]:
    """The rounding as kernels take it: binade, step, low, high."""
    return float(rounding.binade), float(rounding.step), float(rounding.low), float(rounding.high)


def launch(kernel: Any, programs: tuple[int, ...], *args: Any, **options: Any) -> None:
    """Run ``kernel`` on the GPU of its first argument, which need not be the current one."""
    first: Tensor = args[0]
    with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
        kernel[programs](*args, **options)


def power_of_two(n: int) -> int:
    """The least power of two that is not below ``n`` >= 1."""
    return 1 << (n - 1).bit_length()
