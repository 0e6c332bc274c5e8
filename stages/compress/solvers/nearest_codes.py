"""Nearest codes of a weight under given scales, by the same arithmetic on every device.

That is what compressed-tensors does on a CPU: the division, and the sum with the zero point, are
each rounded to the dtype of weight and scale. On a GPU it does otherwise, which gives other codes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress import compressed_tensors_math as library
from stages.compress.grid import Grid, QParams, round_to
from stages.compute import loops


def nearest_codes(weight: Tensor, qparams: QParams, grid: Grid) -> Tensor:
    """The nearest code of every entry of `weight` [out, in], float32.

    What is below 0 and rounds to it is -0, which some formats have a code for.
    """
    which = loops.loops_for(weight)
    if which == "compiled":
        return library.nearest_codes(weight, qparams, grid)
    scale = qparams.scale
    if qparams.global_scale is not None:
        scale = scale / qparams.global_scale
    zero = qparams.zero_point
    if which == "torch":
        return nearest_codes_torch(weight, scale, zero, grid)
    from stages.compress.solvers.rtn_triton import nearest_codes_triton

    return nearest_codes_triton(weight, scale, zero, grid)


def nearest_codes_torch(weight: Tensor, scale: Tensor, zero: Tensor | None, grid: Grid) -> Tensor:
    """As :func:`nearest_codes` in plain torch, the reference.

    scale: as `Quantized.scale`, over the global scale if there is one; zero: its zero points.
    """
    if zero is None:
        zero = torch.zeros_like(scale)  # not left out: the sum has no negative zero
    target = weight / _of_every_entry(scale, grid, weight)
    target += _of_every_entry(zero, grid, weight).to(weight.dtype)
    return round_to(target, grid.codes)


def _of_every_entry(value: Tensor, grid: Grid, weight: Tensor) -> Tensor:
    rows, columns = weight.shape
    height, width = grid.spans(rows, columns)
    spread = value.reshape(-(-rows // height), -1)
    row = torch.arange(rows, device=weight.device) // height
    column = torch.arange(columns, device=weight.device) // width
    return spread[row[:, None], column[None, :]]
