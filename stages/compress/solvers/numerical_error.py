"""NumericalError: numerical trouble in one weight, and the check that a tensor is finite."""

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


def not_finite(weight: Tensor) -> NumericalError:
    """The error for a solution with non-finite entries: the weight has them, or they arose."""
    if not all_finite(weight):
        return NumericalError(
            name="weight",
            reason="the weight has non-finite entries",
            remedy="the checkpoint is damaged: fetch it again, or leave the module out",
        )
    return NumericalError(
        name="weight",
        reason="the solution has non-finite entries",
        remedy="raise dampening_frac, or look at the scales of this weight",
    )
