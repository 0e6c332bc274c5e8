"""Weight ranges as a Triton kernel, for GPUs: one pass over the weight.

Floats are taken by their bits, as in :mod:`stages.compress.observers.range_kernels`: of two floats
of the same sign the larger in magnitude has the larger bits, and NaN is beyond infinity.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stages.compress.grid_triton import launch, power_of_two

CHUNK, TILE = 512, 1024
"""Values of a scale, and of all scales of a program, that are loaded at once."""


@triton.jit
def bounds_kernel(
    x_ptr, low_ptr, high_ptr, rows, columns, groups, width,
    SCALES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64) * SCALES + tl.arange(0, SCALES)
    row, first = p // groups, (p % groups) * width
    alive = row < rows
    stop = tl.minimum(first + width, columns)
    most = tl.zeros([SCALES], tl.int32)
    least = tl.zeros([SCALES], tl.int32)
    for start in range(0, width, CHUNK):
        column = first[:, None] + start + tl.arange(0, CHUNK)[None, :]
        mask = alive[:, None] & (column < stop[:, None])
        x = tl.load(x_ptr + row[:, None] * columns + column, mask=mask, other=0.0)
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
        most = tl.maximum(most, tl.max(bits, axis=1))
        below = tl.where(bits < 0, bits & 0x7FFFFFFF, 0)
        least = tl.maximum(least, tl.max(below, axis=1))
    tl.store(high_ptr + p, most.to(tl.float32, bitcast=True), mask=alive)
    tl.store(low_ptr + p, -(least.to(tl.float32, bitcast=True)), mask=alive)


def bounds_of_rows(weight: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Smallest and largest of `width` neighbouring columns, the last may be fewer, and of 0.

    weight: [rows, columns], a float of 16 or 32 bits. Gives [rows, groups] each, in its dtype;
    where a value is NaN, at least one of the two is.
    """
    rows, columns = weight.shape
    groups = -(-columns // width)
    low, high = (torch.empty(rows, groups, device=weight.device) for _ in range(2))
    shape = shape_of_programs(width)
    launch(
        bounds_kernel,
        (-(-rows * groups // shape["SCALES"]),),
        *(weight.contiguous(), low, high, rows, columns, groups, width),
        **shape,
    )
    return low.to(weight.dtype), high.to(weight.dtype)


def shape_of_programs(width: int) -> dict[str, int]:
    """Constants of a launch for scales of so many neighbouring columns."""
    chunk = min(CHUNK, max(16, power_of_two(width)))
    return {"SCALES": max(1, min(128, TILE // chunk)), "CHUNK": chunk, "num_warps": 4}
