"""From a weight to the ranges its scales cover, and from ranges to stored parameters."""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from torch import Tensor

from stages.compress.grid import Grid, QParams, grid_of
from stages.compress.observers.absmax_scale import scales_of
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


def global_scale_of(weight: Tensor, args: QuantizationArgs, dtype: torch.dtype) -> Tensor | None:
    """The tensor_group global scale, float32 [1], from the largest |weight|; else None."""
    grid = grid_of(args, dtype)
    if grid.strategy != "tensor_group":
        return None
    return global_scale_within(*bounds(weight, grid), dtype)


def global_scale_within(low: Tensor, high: Tensor, dtype: torch.dtype) -> Tensor:
    """The global scale, float32 [1], of ranges [low, high] (any shape) that hold 0."""
    largest = torch.maximum(-low.amin(), high.amax()).to(dtype).reshape(1)
    shared: Tensor = generate_gparam(-largest, largest)
    return shared


def qparams_of(
    low: Tensor,
    high: Tensor,
    args: QuantizationArgs,
    *,
    global_scale: Tensor | None,
    dtype: torch.dtype,
) -> QParams:
    """Parameters whose codes span [low, high] (any shape), to the bit as the reference has them.

    The arithmetic runs in ``dtype``, the checkpoint's: that is where the reference's bits come
    from.
    """
    if global_scale is None and plainly_scaled(args):
        largest = torch.maximum(-low, high).to(dtype)
        scale = scales_of(largest, args).reshape(largest.shape or (1,))
        return QParams(scale=scale, zero_point=None, global_scale=None)
    scale, zero_point = calculate_qparams(
        low.to(dtype), high.to(dtype), args, global_scale=global_scale
    )
    return QParams(
        scale=scale,
        zero_point=None if args.symmetric else zero_point,
        global_scale=global_scale,
    )
