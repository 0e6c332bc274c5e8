"""Sum of squares of every input channel (for OWL, arXiv:2310.05175)."""

from __future__ import annotations

import torch
from torch import Tensor


class Squares:
    """State: float64 [in], the sums of x^2 over all rows. Result: the same in float32."""

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(features, dtype=torch.float64, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        state += x.square().sum(dim=0)
        return state

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return one + other

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return state.float()
