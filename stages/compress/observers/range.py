"""Weight ranges: the smallest and the largest value that share a scale, for any granularity."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from stages.compress.grid import Grid
from stages.compute import loops
from stages.compute.row_tiles import row_tiles

_COMPILED = (torch.bfloat16, torch.float16, torch.float32)
_ALONE = 1 << 23  # elements up to which starting threads takes longer than they save
_TILE = 1 << 20  # elements of a tile


def by_scale(weight: Tensor, grid: Grid) -> Tensor:
    """Weight [out, in] as [*scale shape, elements that share the scale]; blocks padded with 0."""
    if grid.strategy == "tensor":
        return weight.reshape(1, -1)
    if grid.block_structure is not None:
        height, width = grid.block_structure
        rows, columns = weight.shape
        padded = pad(weight, (0, -columns % width, 0, -rows % height))
        rows, columns = padded.shape
        blocks = padded.reshape(rows // height, height, columns // width, width)
        return blocks.transpose(1, 2).flatten(-2)
    return weight.reshape(weight.shape[0], -1, grid.width(weight.shape[1]))


def bounds(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of weight [out, in] under every scale, and 0: [*scale shape].

    Every code grid represents 0, so a range that it lies outside of is never wanted. Where one of
    the values is NaN, at least one of the two is.
    """
    whole = grid.block_structure is not None or weight.shape[1] % grid.width(weight.shape[1]) == 0
    if weight.dtype in _COMPILED and weight.numel() > 0:
        which = loops.loops_for(weight)
        if which == "triton":
            return _triton(weight, grid)
        if which == "compiled" and whole:
            return _compiled(weight, grid)
    values = by_scale(weight, grid)
    # not aminmax, which torch does not vectorise for 16-bit floats
    return values.amin(dim=-1).clamp(max=0), values.amax(dim=-1).clamp(min=0)


def _compiled(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    from stages.compress.observers.range_kernels import bounds_of_rows

    rows, columns = weight.shape
    wide = weight.dtype == torch.float32
    bits = weight.detach().contiguous().view(torch.int32 if wide else torch.int16).numpy()
    positive, negative = bits, bits.view(np.uint32 if wide else np.uint16)
    zeros = positive.dtype.type(0), negative.dtype.type(1 << 31 if wide else 1 << 15)
    width = grid.width(columns)
    low = np.empty((rows, -(-columns // width)), dtype=negative.dtype)
    high = np.empty(low.shape, dtype=positive.dtype)

    def tile(start: int, stop: int) -> None:
        own = slice(start, stop)
        bounds_of_rows(positive[own], negative[own], width, *zeros, low[own], high[own])

    if weight.numel() <= _ALONE:
        tile(0, rows)
    else:
        row_tiles(rows, max(1, _TILE // columns), tile)
    shape = grid.scale_shape(rows, columns)
    height, _ = grid.spans(rows, columns)
    if height > 1:
        starts = np.arange(0, rows, height)
        low, high = (np.maximum.reduceat(found, starts, axis=0) for found in (low, high))
    least, most = (
        torch.from_numpy(found.view(bits.dtype)).view(weight.dtype).reshape(shape)
        for found in (low, high)
    )
    return least, most


def _triton(weight: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    from stages.compress.observers.range_triton import bounds_of_rows

    rows, columns = weight.shape
    low, high = bounds_of_rows(weight, grid.width(columns))
    height, _ = grid.spans(rows, columns)
    if height > 1:
        low, high = (pad(end, (0, 0, 0, -rows % height)) for end in (low, high))
        low = low.unflatten(0, (-1, height)).amin(dim=1)
        high = high.unflatten(0, (-1, height)).amax(dim=1)
    shape = grid.scale_shape(rows, columns)
    return low.reshape(shape), high.reshape(shape)
