"""The smallest and the largest input, for static activation scales."""

from __future__ import annotations

import torch
from torch import Tensor


class Range:
    """State and result: float32 [2], minimum and maximum over all rows and channels."""

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        del features
        return torch.tensor([torch.inf, -torch.inf], device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        return Range.merge(state, torch.stack(torch.aminmax(x)))

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        low, high = torch.minimum(one[0], other[0]), torch.maximum(one[1], other[1])
        return torch.stack((low, high))

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return state
