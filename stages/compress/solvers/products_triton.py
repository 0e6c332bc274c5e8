"""Matrix product in TF32 as a Triton kernel, for the tensor cores of GPUs."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from stages.compress.grid_triton import launch

SHAPE: dict[str, Any] = {"M": 64, "N": 128, "K": 32, "num_warps": 8, "num_stages": 3}
"""Of a program: a tile of the result, and how many columns of A it loads at a time. With
fewer warps or more rows registers spill."""


@triton.jit
def to_tf32(x):
    """Nearest TF32, ties to even. Without it tensor cores would cut bits off."""
    bits = x.to(tl.int32, bitcast=True)
    bits = (bits + 4095 + ((bits >> 13) & 1)) & -8192
    return tl.where(x == x, bits.to(tl.float32, bitcast=True), float("nan"))


@triton.jit
def add_product_kernel(
    out_ptr, a_ptr, b_ptr, m_count, n_count, k_count, out_lead, a_lead, b_lead, alpha,
    TRANSPOSED: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    row, column = tl.program_id(0) * M, tl.program_id(1) * N
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    row_inside, column_inside = (row + m < m_count)[:, None], (column + n < n_count)[None, :]
    # where a tile begins may need more than 32 bits, where an entry of it lies does not
    wide = row.to(tl.int64)
    if TRANSPOSED:
        a_ptr += wide
        a_tile = k[None, :] * a_lead + m[:, None]
        a_step = K * tl.cast(a_lead, tl.int64)
    else:
        a_ptr += wide * a_lead
        a_tile = m[:, None] * a_lead + k[None, :]
        a_step = tl.full([], K, tl.int64)
    b_ptr += column
    b_tile = k[:, None] * b_lead + n[None, :]
    total = tl.zeros([M, N], dtype=tl.float32)
    for start in range(0, k_count, K):
        inside = start + k < k_count
        a = tl.load(a_ptr + a_tile, mask=row_inside & inside[None, :], other=0.0)
        b = tl.load(b_ptr + b_tile, mask=inside[:, None] & column_inside, other=0.0)
        total = tl.dot(to_tf32(a), to_tf32(b), total, input_precision="tf32")
        a_ptr += a_step
        b_ptr += K * tl.cast(b_lead, tl.int64)
    where = out_ptr + wide * out_lead + column + m[:, None] * out_lead + n[None, :]
    mask = row_inside & column_inside
    tl.store(where, tl.load(where, mask=mask, other=0.0) + alpha * total, mask=mask)


def add_product(out: Tensor, A: Tensor, B: Tensor, alpha: float) -> None:
    """out += alpha A B, in place, in TF32; see :mod:`stages.compress.solvers.products`."""
    m, n = out.shape
    if not m or not n:
        return
    transposed = A.stride(1) != 1
    if 1 not in A.stride() or out.stride(1) != 1 or B.stride(1) != 1:
        raise ValueError("a product in TF32 takes matrices with contiguous rows")
    launch(
        add_product_kernel,
        (-(-m // SHAPE["M"]), -(-n // SHAPE["N"])),
        *(out, A, B, m, n, A.shape[1], out.stride(0), A.stride(int(transposed)), B.stride(0)),
        float(alpha),
        TRANSPOSED=transposed,
        **SHAPE,
    )
