"""Nearest codes of a weight under given scales as a Triton kernel, for GPUs."""

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
def nearest_codes_kernel(
    x_ptr, scale_ptr, zero_ptr, code_ptr, columns, groups, height, width,
    binade, step, low, high, DTYPE: tl.constexpr, ZERO: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = column < columns
    which = (row // height) * groups + column // width
    x = tl.load(x_ptr + row * columns + column, mask=mask, other=0.0).to(tl.float32)
    s = tl.load(scale_ptr + which, mask=mask, other=1.0)
    target = _rounded_to(tl.div_rn(x, s), DTYPE)
    z = 0.0  # not left out: the sum has no negative zero
    if ZERO:
        z = tl.load(zero_ptr + which, mask=mask, other=0.0)
    code = rounded_code(_rounded_to(target + z, DTYPE), binade, step, low, high)
    tl.store(code_ptr + row * columns + column, code, mask=mask)


_DTYPES = {
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float32: tl.float32,
}


def nearest_codes_triton(weight: Tensor, scale: Tensor, zero: Tensor | None, grid: Grid) -> Tensor:
    """As `stages.compress.solvers.nearest_codes.nearest_codes_torch`, in one launch."""
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, device=weight.device)
    if not weight.numel():
        return codes
    height, width = grid.spans(rows, columns)
    wide = scale.float().contiguous()
    launch(
        nearest_codes_kernel,
        (rows, -(-columns // BLOCK)),
        *(weight.contiguous(), wide, wide if zero is None else zero.float().contiguous(), codes),
        *(columns, -(-columns // width), height, width),
        *as_scalars(grid.codes),
        DTYPE=_DTYPES[torch.result_type(weight, scale)],
        ZERO=zero is not None,
        BLOCK=BLOCK,
    )
    return codes
