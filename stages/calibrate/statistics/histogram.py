"""Histogram of a Linear's inputs by value, for observers that search activation scales (mse)."""

from __future__ import annotations

import torch
from torch import Tensor

PATTERNS = 1 << 16


class Histogram:
    """State: int64 [65536], the number of inputs with each bit pattern of bfloat16.

    Result: float64 [k, 2], the k different values in ascending order, and their counts. Inputs of a
    bfloat16 model are counted exactly, others after rounding to bfloat16.
    """

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        del features
        return torch.zeros(PATTERNS, dtype=torch.int64, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        patterns = x.to(torch.bfloat16).flatten().view(torch.int16).int() & (PATTERNS - 1)
        return state.add_(torch.bincount(patterns, minlength=PATTERNS))

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return one + other

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        (seen,) = state.nonzero(as_tuple=True)
        values = seen.to(torch.int16).view(torch.bfloat16).double()
        order = values.argsort(stable=True)
        return torch.stack((values[order], state[seen][order].double()), dim=1)
