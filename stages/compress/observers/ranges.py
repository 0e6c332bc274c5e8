"""From a weight to the ranges its scales cover, and from ranges to stored parameters."""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import (
    calculate_qparams,
    generate_gparam,
    maybe_pad_tensor_for_block_quant,
)
from torch import Tensor

from stages.compress.grid import Grid, QParams, grid_of


def by_scale(weight: Tensor, grid: Grid) -> Tensor:
    """Weight [out, in] as [*scale shape, elements that share the scale]; blocks padded with 0."""
    if grid.strategy == "tensor":
        return weight.reshape(1, -1)
    if grid.block_structure is not None:
        height, width = grid.block_structure
        padded: Tensor = maybe_pad_tensor_for_block_quant(weight, grid.block_structure)
        rows, columns = padded.shape
        blocks = padded.reshape(rows // height, height, columns // width, width)
        return blocks.transpose(1, 2).flatten(-2)
    return weight.reshape(weight.shape[0], -1, grid.width(weight.shape[1]))


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest along the last dimension, which is kept.

    Two passes: torch vectorises amin and amax of 16-bit floats, but not aminmax.
    """
    return values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)


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
    if grid_of(args, dtype).strategy != "tensor_group":
        return None
    largest = weight.abs().amax().to(dtype).reshape(1)
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
    scale, zero_point = calculate_qparams(
        low.to(dtype), high.to(dtype), args, global_scale=global_scale
    )
    return QParams(
        scale=scale,
        zero_point=None if args.symmetric else zero_point,
        global_scale=global_scale,
    )
