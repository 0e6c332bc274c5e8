"""Rounding to nearest under given scales as a Triton kernel, for GPUs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from stages.compress.grid import Grid
from stages.compress.grid_triton import as_scalars, launch, rounded_code

BLOCK = 1024
"""Columns of a program, which has one row."""


@triton.jit
def _rounded_to(x, DTYPE: tl.constexpr):
    """float32 `x` in the precision of DTYPE; bfloat16 by hand, as the interpreter cuts bits off."""
    if DTYPE == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    else:
        return x.to(DTYPE).to(tl.float32)


@triton.jit
def nearest_values_kernel(
    x_ptr, scale_ptr, zero_ptr, value_ptr, columns, groups, height, width,
    binade, step, low, high,
    DTYPE: tl.constexpr, ADD: tl.constexpr, ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    which = (row // height) * groups + column // width
    x = tl.load(x_ptr + row * columns + column, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(scale_ptr + which, mask=mask, other=1.0)
    target = _rounded_to(tl.div_rn(x, s), DTYPE)
    if ADD:
        z = 0.0
        if ZERO:
            z = tl.load(zero_ptr + which, mask=mask, other=0.0)
        target = _rounded_to(target + z, DTYPE)
    value = rounded_code(target, binade, step, low, high)
    tl.store(value_ptr + row * columns + column, value, mask=mask)


_DTYPES = {
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float32: tl.float32,
}


def nearest_values(weight: Tensor, scale: Tensor, zero: Tensor | None, grid: Grid) -> Tensor:
    """The values of the nearest codes of `weight` [out, in], float32, in one launch.

    scale: as `Quantized.scale`, over the global scale if there is one; zero: its zero points. What
    rounds to zero keeps its sign; for E2M1 -0 itself does not.
    """
    rows, columns = weight.shape
    values = torch.empty(rows, columns, device=weight.device)
    if not weight.numel():
        return values
    height, width = grid.spans(rows, columns)
    wide = scale.float().contiguous()
    added = wide if zero is None else zero.float().contiguous()
    launch(
        nearest_values_kernel,
        (rows, -(-columns // BLOCK)),
        *(weight.contiguous(), wide, added, values, columns, -(-columns // width), height, width),
        *as_scalars(grid.codes),
        DTYPE=_DTYPES[torch.result_type(weight, scale)],
        ADD=zero is not None or (grid.type == "float" and grid.num_bits == 4),  # -0 + 0 is 0
        ZERO=zero is not None,
        BLOCK=BLOCK,
    )
    return values
