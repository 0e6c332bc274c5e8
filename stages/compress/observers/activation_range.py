"""Activation observers: the static range of a module's input, from what calibration saw."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.grid import Grid, round_to
from stages.compress.observers.qparams import qparams_of

Range = tuple[Tensor, Tensor]


def widest(batches: Tensor) -> Range:
    """The range of all `batches` float32 [n, 2], n >= 1: scalars, nothing seen is clipped."""
    return batches[:, 0].amin(), batches[:, 1].amax()


def latest(batches: Tensor) -> Range:
    """The range of the last batch."""
    return batches[-1, 0], batches[-1, 1]


def averaged(batches: Tensor, constant: float = 0.01) -> Range:
    """The exponential moving average r <- (1 - constant) r + constant r_k, begun at the first.

    In float32: in bfloat16 steps of a hundredth would mostly round to nothing.
    """
    mean = batches[0]
    for batch in batches[1:]:
        mean = mean * (1.0 - constant) + batch * constant
    return mean[0], mean[1]


def searched(
    histogram: Tensor,
    input_grid: Grid,
    *,
    maxshrink: float = 0.20,
    grid: float = 100,
    norm: float = 2.4,
) -> Range:
    """The shrunk range under which all inputs together err least, in the L^`norm` sense.

    histogram: float64 [k, 2], values and counts. Ranges are p times the widest, p = 1, 1 - 1/grid,
    ... above 1 - maxshrink; each is judged by the scale and zero point that it would be stored as.
    """
    values, counts = histogram[:, 0].float(), histogram[:, 1]
    steps = max(1, int(maxshrink * grid))
    factors = 1 - torch.arange(steps, device=values.device) / grid
    low, high = values.amin() * factors, values.amax() * factors
    found = qparams_of(low, high, input_grid, global_scale=None)
    scale = found.scale.float()[:, None]
    zero = (
        torch.zeros_like(scale) if found.zero_point is None else found.zero_point.float()[:, None]
    )
    rounded = (round_to(values / scale + zero, input_grid.codes) - zero) * scale
    errors = ((rounded - values).abs().double().pow(norm) * counts).sum(dim=1)
    best = errors.argmin()
    return low[best], high[best]
