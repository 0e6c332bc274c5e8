"""Gram matrix X^T X of a Linear's inputs (half the Hessian of GPTQ, arXiv:2210.17323)."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 384
"""Rows of the result that are computed together: wide enough for a fast matrix product."""


class Gram:
    """State and result: float32 [in, in], the sum of x x^T over all rows.

    The state holds only the blocks on and above the diagonal, which halves the work.
    """

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(features, features, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
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
            corner.copy_(corner.triu() + corner.triu(1).T)
        return state
