"""The scale search as a Triton kernel, for GPUs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stages.compress.grid import Rounding
from stages.compress.grid_triton import as_scalars, launch, power_of_two, rounded_code

CHUNK, TILE = 256, 1024
"""Values of a scale, and of all scales of a program, that are in registers at once."""


@triton.jit
def _power(x, exponent):
    """x**exponent for finite x >= 0: the polynomials of `search_kernels`, for the same choices."""
    bits = x.to(tl.int32, bitcast=True)
    power = ((bits >> 23) - 127).to(tl.float32)
    f = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True) - 1.0
    log = f * -0.008665699511766434 + 0.04943336918950081
    log = log * f - 0.13314692676067352
    log = log * f + 0.2380419820547104
    log = log * f - 0.34542933106422424
    log = log * f + 0.47817644476890564
    log = log * f - 0.7210957407951355
    log = log * f + 1.442685842514038
    log = log * f + 5.642244005343855e-08
    y = tl.minimum(tl.maximum((power + log) * exponent, -126.0), 127.0)
    whole = tl.floor(y)
    g = y - whole
    two = g * 0.00021865784947294742 + 0.0012391331838443875
    two = two * g + 0.009684186428785324
    two = two * g + 0.055480629205703735
    two = two * g + 0.24023045599460602
    two = two * g + 0.6931469440460205
    two = two * g + 1.0
    return two * ((whole.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["count", "tried", "patterns"])
def best_scale_kernel(
    x_ptr, weight_ptr, scale_ptr, zero_ptr, best_ptr, error_ptr, count, elements, patterns, tried,
    norm, binade, step, low, high,
    SQUARE: tl.constexpr, WHOLE: tl.constexpr, SCALES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64) * SCALES + tl.arange(0, SCALES)
    alive = p < count
    e = tl.arange(0, CHUNK)
    x_row = x_ptr + (p * elements)[:, None]
    weight_row = weight_ptr + ((p % patterns) * elements)[:, None]
    mask = alive[:, None] & (e < elements)[None, :]
    x = tl.load(x_row + e[None, :], mask=mask, other=0.0)
    weight = tl.load(weight_row + e[None, :], mask=mask, other=0.0)
    least = tl.full([SCALES], float("inf"), tl.float32)
    best = tl.zeros([SCALES], tl.int32)
    for k in range(tried):
        s = tl.load(scale_ptr + p * tried + k, mask=alive, other=1.0)[:, None]
        z = tl.load(zero_ptr + p * tried + k, mask=alive, other=0.0)[:, None]
        error = tl.zeros([SCALES], tl.float32)
        for first in range(0, elements, CHUNK):
            if not WHOLE:
                column = (first + e)[None, :]
                mask = alive[:, None] & (column < elements)
                x = tl.load(x_row + column, mask=mask, other=0.0)
                weight = tl.load(weight_row + column, mask=mask, other=0.0)
            target = tl.div_rn(x, s + tl.zeros_like(x)) + z
            off = (rounded_code(target, binade, step, low, high) - z) * s - x
            if SQUARE:
                error += tl.sum(weight * off * off, axis=1)
            else:
                error += tl.sum(weight * _power(tl.abs(off), norm), axis=1)
        tl.store(error_ptr + p * tried + k, error, mask=alive)
        better = error < least
        least = tl.where(better, error, least)
        best = tl.where(better, k, best)
    tl.store(best_ptr + p, best.to(tl.int64), mask=alive)


def best_scale(
    values: Tensor, scale: Tensor, zero: Tensor, patterns: Tensor, norm: float, codes: Rounding
) -> tuple[Tensor, Tensor]:
    """The best of some scales for every group of values, ties to the first; and all errors.

    values float32 [p, n]; scale, zero [p, k]; patterns [m, n], of which group p takes row p % m.
    Gives int64 [p] and the sums of weight * |error|**norm, float32 [p, k].
    """
    count, elements = values.shape
    tried = scale.shape[1]
    best = torch.empty(count, dtype=torch.int64, device=values.device)
    errors = torch.empty(count, tried, device=values.device)
    if not count:
        return best, errors
    given = [t.contiguous() for t in (values, patterns, scale, zero)]
    shape = shape_of_programs(elements)
    launch(
        best_scale_kernel,
        (-(-count // shape["SCALES"]),),
        *(*given, best, errors, count, elements, len(patterns), tried, float(norm)),
        *as_scalars(codes),
        SQUARE=norm == 2.0,
        **shape,
    )
    return best, errors


def shape_of_programs(elements: int) -> dict[str, int]:
    """Constants of a launch for scales of so many values."""
    chunk = min(CHUNK, max(16, power_of_two(elements)))
    scales = max(1, min(64, TILE // chunk))
    whole = elements <= chunk
    return {"WHOLE": whole, "SCALES": scales, "CHUNK": chunk, "num_warps": 4, "num_stages": 1}
