"""Quantization parameters: scales, zero points and global scales from the ranges of a weight."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.compressed_tensors_math import global_scale_of_range, scale_and_zero_point
from stages.compress.deprecated_args import takes_args
from stages.compress.grid import Grid, QParams
from stages.compress.observers.absmax_scale import scales_of
from stages.compress.observers.power_scale import COMPRESSED_TENSORS, power_scale
from stages.compress.observers.range import bounds, by_scale
from stages.schemes.layouts import plainly_scaled


def importance_by_scale(importance: Tensor, grid: Grid, rows: int) -> Tensor:
    """Importance [in] of columns as float32 [patterns, elements]: scale p uses row p % patterns."""
    importance = importance.float()
    if grid.strategy == "tensor":
        return importance.expand(rows, -1).reshape(1, -1)
    if grid.block_structure is not None:
        blocks = by_scale(importance.expand(grid.block_structure[0], -1), grid)
        return blocks.reshape(-1, blocks.shape[-1])
    return importance.reshape(-1, grid.width(importance.shape[-1]))


@takes_args
def global_scale_of(weight: Tensor, grid: Grid) -> Tensor | None:
    """The tensor_group global scale, float32 [1], from the largest |weight|; else None."""
    if grid.strategy != "tensor_group":
        return None
    return global_scale_within(*bounds(weight, grid), grid.dtype)


def global_scale_within(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """The global scale, float32 [1], of ranges [low, high] (any shape) that hold 0."""
    largest = torch.maximum(-low.amin(), high.amax()).to(dtype).reshape(1)
    return global_scale_of_range(-largest, largest)


@takes_args
def qparams_of(low: Tensor, high: Tensor, grid: Grid, *, global_scale: Tensor | None) -> QParams:
    """Parameters whose codes span [low, high] (any shape), to the bit as the reference has them.

    The arithmetic runs in the grid's ``dtype``, that of the checkpoint, as the reference's does.
    """
    if global_scale is None and plainly_scaled(grid):
        largest = torch.maximum(-low, high).to(grid.dtype)
        scale = scales_of(largest, grid).reshape(largest.shape or (1,))
        return QParams(scale=scale, zero_point=None, global_scale=None)
    if grid.scale_rule not in (None, COMPRESSED_TENSORS):
        largest = torch.maximum(-low, high).to(grid.dtype)
        return QParams(scale=power_scale(largest, grid), zero_point=None, global_scale=None)
    scale, zero_point = scale_and_zero_point(
        low.to(grid.dtype), high.to(grid.dtype), grid, global_scale
    )
    return QParams(
        scale=scale,
        zero_point=None if grid.symmetric else zero_point,
        global_scale=global_scale,
    )
