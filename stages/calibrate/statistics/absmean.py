"""Mean magnitude of every input channel (for AWQ, arXiv:2306.00978)."""

from __future__ import annotations

import torch
from torch import Tensor


class AbsMean:
    """State: float64 [in + 1], the sums of |x| and the number of rows. Result: float32 [in]."""

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(features + 1, dtype=torch.float64, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        state[:-1] += x.abs().sum(dim=0)
        state[-1] += len(x)
        return state

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return one + other

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return (state[:-1] / state[-1].clamp(min=1)).float()
