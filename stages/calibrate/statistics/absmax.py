"""Absolute maximum of every input channel (for SmoothQuant, arXiv:2211.10438)."""

from __future__ import annotations

import torch
from torch import Tensor


class AbsMax:
    """State and result: float32 [in], the maximum of |x| over all rows."""

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(features, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        return torch.maximum(state, x.abs().amax(dim=0))

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return torch.maximum(one, other)

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return state
