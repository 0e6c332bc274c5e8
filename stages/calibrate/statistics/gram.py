"""Gram matrix X^T X of a Linear's inputs (half the Hessian of GPTQ, arXiv:2210.17323).

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


class Gram:
    """State and result: float32 [in, in], the sum of x x^T over all rows.

    The state holds only the blocks on and above the diagonal, which halves the work.
    """

    takes_half = True

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(features, features, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            return _update_by_halves(state, x)
        for start in range(0, len(state), BLOCK):
            part = state[start : start + BLOCK, start:]
            torch.addmm(part, x[:, start : start + BLOCK].T, x[:, start:], out=part)
        return state

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return one + other

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        for start in range(0, len(state), BLOCK):
            stop = min(start + BLOCK, len(state))
            state[stop:, start:stop] = state[start:stop, stop:].T
            corner = state[start:stop, start:stop]
            below = torch.ones_like(corner, dtype=torch.bool).tril_(-1)
            corner.copy_(torch.where(below, corner.T, corner))
        return state


def _update_by_halves(state: Tensor, x: Tensor) -> Tensor:
    for rows in x.split(HALF_ROWS):
        for start in range(0, len(state), HALF_BLOCK):
            own = rows[:, start : start + HALF_BLOCK]
            state[start : start + HALF_BLOCK, start:] += half_product(own.T, rows[:, start:])
    return state


def half_product(one: Tensor, other: Tensor) -> Tensor:
    """The product of two matrices of one half-precision dtype with float32 sums, on a GPU.

    Products of two such floats are exact in float32, so nothing is lost but the order of the sum.
    """
    return torch.mm(one, other, out_dtype=torch.float32)
