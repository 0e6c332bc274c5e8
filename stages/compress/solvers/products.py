"""Matrix products of a solver, in float32 or in TF32.

TF32 has float32's range and 11 significant bits: tensor cores multiply operands of it exactly and
sum in float32. torch turns it on for the whole process, calibration in a thread beside included, so
that switch is never touched: products in TF32 are a kernel of ours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compute import loops


def add_product(
    out: Tensor, A: Tensor, B: Tensor, *, alpha: float = 1, tf32: bool = False
) -> Tensor:
    """out += alpha A B, in place, for float32 out [m, n], A [m, k] and B [k, n]; gives `out`.

    tf32: round A and B to TF32. Rows of out and B are contiguous, and so are rows or columns of A.
    """
    if not tf32:
        return out.addmm_(A, B, alpha=alpha)
    if loops.loops_for(out) == "triton":
        from stages.compress.solvers import products_triton

        products_triton.add_product(out, A, B, alpha)
        return out
    return out.addmm_(rounded_to_tf32(A), rounded_to_tf32(B), alpha=alpha)


def product(A: Tensor, B: Tensor, *, tf32: bool = False) -> Tensor:
    """A B, float32 [m, n], as :func:`add_product` multiplies."""
    if not tf32:
        return A @ B
    return add_product(A.new_zeros(A.shape[0], B.shape[1]), A, B, tf32=True)


def rounded_to_tf32(x: Tensor) -> Tensor:
    """The nearest TF32 of every float32, ties to even; what is too large becomes infinite."""
    bits = x.view(torch.int32)
    nearest = ((bits + 4095 + ((bits >> 13) & 1)) & -8192).view(torch.float32)
    return torch.where(x.isnan(), x, nearest)
