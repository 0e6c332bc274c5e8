"""NumericalError, and the check that a tensor is finite."""

from __future__ import annotations

import torch
from torch import Tensor


class NumericalError(ArithmeticError):
    """Numerical trouble in one weight: what (``name``), ``reason`` and ``remedy``, as phrases."""

    def __init__(self, *, name: str, reason: str, remedy: str) -> None:
        super().__init__(f"{name}: {reason}; {remedy}")
        self.name = name
        self.reason = reason
        self.remedy = remedy


def all_finite(tensor: Tensor) -> bool:
    """Whether no entry is infinite or NaN; float32 is looked at once, without a copy."""
    if tensor.dtype != torch.float32 or tensor.numel() == 0:
        return bool(torch.isfinite(tensor).all())
    least, most = torch.aminmax(tensor)  # NaN if one entry is
    return bool(torch.isfinite(least) & torch.isfinite(most))
