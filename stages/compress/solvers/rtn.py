"""Round to nearest (RTN): the nearest code of every entry under given scales."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.deprecated_args import takes_args
from stages.compress.grid import Grid, QParams, Quantized, column_scale, expand
from stages.compress.solvers.nearest_codes import nearest_codes
from stages.compute.row_tiles import even_tiles
from stages.formats.fp4_packing import fits_fp4, fp4_of, fp4_values
from stages.formats.row_blocks import by_rows, share

DEVICE_ELEMENTS = 1 << 27
"""Of a tile on a GPU: its copies in float32 are memory that no other tile has at the time."""


@takes_args
def rtn(weight: Tensor, grid: Grid, qparams: QParams) -> Quantized:
    """The nearest code of every entry of ``weight`` [out, in] under fixed parameters.

    The division runs in the weight's own dtype, as it does when a checkpoint is compressed
    without a solver: hand over bfloat16 to have those codes, float32 to have the nearest ones.
    """
    chosen = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)

    def tile(start: int, stop: int) -> None:
        part = _share(qparams, grid, start, stop)
        chosen[start:stop] = _nearest(weight[start:stop], grid, part)

    if weight.is_cpu:
        by_rows(weight, tile, grid)
    else:
        height = 1 if grid.block_structure is None else grid.block_structure[0]
        most = DEVICE_ELEMENTS // max(1, weight.shape[1])
        even_tiles(weight.shape[0], most, tile, multiple=height)
    return Quantized(
        weight=chosen,
        scale=qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
        original=weight,
    )


def _share(qparams: QParams, grid: Grid, start: int, stop: int) -> QParams:
    zero_point = qparams.zero_point
    return QParams(
        scale=share(qparams.scale, grid, start, stop),
        zero_point=None if zero_point is None else share(zero_point, grid, start, stop),
        global_scale=qparams.global_scale,
    )


def _nearest(weight: Tensor, grid: Grid, qparams: QParams) -> Tensor:
    if fits_fp4(weight, grid):
        codes = fp4_values(fp4_of(weight, qparams.scale, qparams.global_scale))
    else:
        codes = nearest_codes(weight, qparams, grid)
    return dequantized(codes, qparams, grid).weight


def dequantized(codes: Tensor, qparams: QParams, grid: Grid) -> Quantized:
    """The weight that ``codes`` (float32 [out, in]) mean under stored parameters."""
    scale, zero = expand(qparams, grid, codes.shape[0])
    if codes.numel() and codes.shape[1] % scale.shape[1] == 0:
        apart = codes.unflatten(1, (scale.shape[1], -1))
        weight = ((apart - zero.unsqueeze(2)) * scale.unsqueeze(2)).flatten(1)
    else:  # blocks at the edge are smaller
        column = column_scale(grid, codes.shape[1], codes.device)
        weight = (codes - zero[:, column]) * scale[:, column]
    return Quantized(
        weight=weight,
        scale=qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
    )
