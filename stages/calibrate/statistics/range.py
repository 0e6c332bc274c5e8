"""Minimum and maximum of a Linear's inputs by batch, for static activation scales."""

from __future__ import annotations

import torch
from torch import Tensor


class Range:
    """State and result: float32 [batches, 2], minimum and maximum over rows and channels.

    Batches are kept apart and in order, so that any observer (the widest range, a moving average,
    the last one) is a function of the result, and configs that differ in it share a calibration.
    """

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        del features
        return torch.empty(0, 2, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        return torch.cat((state, torch.stack(torch.aminmax(x))[None]))

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return torch.cat((one, other))

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return state
