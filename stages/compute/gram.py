"""Sums of products of token rows: Gram matrices X^T X, and X^T Y of two of the same tokens.

On a GPU products of half-precision inputs are summed in float32. On a CPU inputs become float32
first, whatever units for bfloat16 it has (torch 2.13). There `mm` rounds its sums to bfloat16, an
error of 4e-3 of the diagonal in place of 1e-6, with which the damped matrix has no Cholesky factor;
it has no `out_dtype`; and the switch that has oneDNN multiply in bfloat16 with float32 sums is of
the process, so that it changes bits of a solver in another thread. tests/benchmarks/gram.py
measures it, so far on a CPU without such units.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 384
"""Rows of the result that are computed together: wide enough for a fast matrix product."""
HALF_BLOCK, HALF_ROWS = 1024, 8192
"""The same on tensor cores, and how many products they sum before they add them to the state."""


def add_gram(state: Tensor, x: Tensor) -> None:
    """Add x^T x to `state` [in, in] float32, on and above the diagonal only: half of the work.

    x: [n, in], float32, or half precision on a GPU.
    """
    if x.dtype != torch.float32:
        _add_halves(state, x)
        return
    for start in range(0, len(state), BLOCK):
        part = state[start : start + BLOCK, start:]
        torch.addmm(part, x[:, start : start + BLOCK].T, x[:, start:], out=part)


def mirror(state: Tensor) -> Tensor:
    """`state` [in, in] with what `add_gram` left out, in place."""
    for start in range(0, len(state), BLOCK):
        stop = min(start + BLOCK, len(state))
        state[stop:, start:stop] = state[start:stop, stop:].T
        corner = state[start:stop, start:stop]
        below = torch.ones_like(corner, dtype=torch.bool).tril_(-1)
        corner.copy_(torch.where(below, corner.T, corner))
    return state


def add_cross(state: Tensor, x: Tensor, y: Tensor) -> None:
    """Add x^T y to `state` [k, m] float32.

    x: [n, k], y: [n, m]; both float32, or both of one half precision on a GPU.
    """
    if x.dtype == torch.float32:
        state.addmm_(x.T, y)
        return
    for one, other in zip(x.split(HALF_ROWS), y.split(HALF_ROWS), strict=True):
        state += half_product(one.T, other)


def _add_halves(state: Tensor, x: Tensor) -> None:
    for rows in x.split(HALF_ROWS):
        for start in range(0, len(state), HALF_BLOCK):
            own = rows[:, start : start + HALF_BLOCK]
            state[start : start + HALF_BLOCK, start:] += half_product(own.T, rows[:, start:])


def half_product(one: Tensor, other: Tensor) -> Tensor:
    """The product of two matrices of one half-precision dtype with float32 sums, on a GPU.

    Products of two such floats are exact in float32, so nothing is lost but the order of the sum.
    """
    return torch.mm(one, other, out_dtype=torch.float32)
