"""Weights whose rounding shows every difference: ties, zeros of both signs, tiny values."""

from __future__ import annotations

import torch

from stages.compress.observers.minmax import observe
from tests.kernels.cases import grid
from tests.stages.compress.solvers.reference import problem


def hard_to_round(name: str, dtype: torch.dtype) -> torch.Tensor:
    """A weight [33, 96] with zeros of both signs, tiny values, and ties between codes."""
    weight, _ = problem(rows=33, columns=96, seed=3)
    scale = observe(weight, grid(name)).scale.float().flatten()[0]
    weight = weight.to(dtype)
    weight[0, :96] = (torch.arange(-48, 48) / 8 * scale).to(dtype).clamp(-0.1, 0.1)
    weight[1, :8] = torch.tensor([0.0, -0.0, 1e-7, -1e-7, 1e-30, -1e-30, 1e-4, -1e-4])
    return weight
