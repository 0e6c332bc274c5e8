"""AWQ (arXiv:2306.00978): factors by channel from mean inputs and weights, one for every ratio.

The paper's method scales up the weights that large inputs meet, so that they round well. How much
is a ratio that is searched for; what a candidate costs is in :mod:`.candidate_loss`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.solvers.numerical_error import NumericalError

REACH = 1e4
"""Factors are at most this many times as large or as small as their middle."""


def weight_magnitudes(weight: Tensor, width: int) -> Tensor:
    """Sum over rows of |w| over the largest |w| that shares its scale: float64 [in].

    weight: [out, in]; `width` neighbouring columns share a scale. Divide the sums of all weights
    that read one input by the number of their rows to have the mean.
    """
    w = weight.float().abs()
    groups = w.unflatten(1, (-1, width)) if w.shape[1] % width == 0 else w.unsqueeze(1)
    largest = groups.amax(dim=2, keepdim=True)
    return (groups / torch.where(largest > 0, largest, 1.0)).flatten(1).sum(dim=0).double()


def awq_scales(absmean: Tensor, magnitude: Tensor, ratio: float, *, duo_scaling: bool) -> Tensor:
    """s_j = mean|x_j|^r, with `duo_scaling` over mean|w_j|^(1 - r): float32 [in].

    Equation 5 of the paper and its released code. absmean, magnitude: [in], not negative. The input
    is divided by s, the columns are multiplied by it; all s are divided by the root of the largest
    times the smallest, which leaves their middle at 1. A channel that is dead on either side gets
    1. Raises NumericalError where an operand is not finite.
    """
    x, w = absmean.double(), magnitude.double()
    if not bool(torch.isfinite(x).all() & torch.isfinite(w).all()):
        raise NumericalError(
            name="weight",
            reason="mean inputs or weights are not finite",
            remedy="look at the weights in the original checkpoint, or leave the modifier out",
        )
    alive = (x > 0) & (w > 0)
    if not bool(alive.any()):
        return torch.ones_like(x, dtype=torch.float32)
    s = x[alive].pow(ratio)
    if duo_scaling:
        s = s / w[alive].pow(1 - ratio)
    middle = (s.amax().log() + s.amin().log()) / 2
    found = torch.ones_like(x)
    found[alive] = (s.log() - middle).exp().clamp(1 / REACH, REACH)
    return found.float()


def ratios(n_grid: int) -> list[float]:
    """The ratios that are tried: 0, 1 / n_grid, ... below 1."""
    return [step / n_grid for step in range(n_grid)]
