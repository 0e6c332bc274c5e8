"""Round to nearest (RTN): the nearest code of every entry under given scales.

Written in operations that IEEE 754 defines, each rounded by itself, so that every device chooses
the same codes: compressed-tensors' own rounding is a fused kernel on CUDA, which rounds otherwise.
The kernel for GPUs does the same operations in one pass.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from stages.compress.deprecated_args import takes_args
from stages.compress.grid import (
    Grid,
    QParams,
    Quantized,
    by_scale_of_row,
    expand,
    expand_rows,
    round_to,
)
from stages.compress.solvers.nearest_fp4 import nearest_fp4
from stages.compress.solvers.numerical_error import NumericalError
from stages.compute import loops
from stages.compute.row_tiles import even_tiles
from stages.formats.codes import code_dtype, decode, encode, to_e4m3
from stages.formats.row_blocks import by_rows, share

DEVICE_ELEMENTS = 1 << 27
"""Of a tile on a GPU: its copies in float32 are memory that no other tile has at the time."""
HALF_UNIT = 2.0**-8
"""Of bfloat16, relative: what reading a weight in that dtype would hide."""


@takes_args
def rtn(weight: Tensor, grid: Grid, qparams: QParams) -> Quantized:
    """The nearest code of every entry of ``weight`` [out, in] under fixed parameters.

    The division runs in the weight's own dtype, as it does when a checkpoint is compressed
    without a solver: hand over bfloat16 to have those codes, float32 to have the nearest ones.
    """
    chosen = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    codes = torch.empty(weight.shape, dtype=code_dtype(grid), device=weight.device)

    def tile(start: int, stop: int) -> None:
        part = _share(qparams, grid, start, stop)
        codes[start:stop], values = nearest(weight[start:stop], part, grid)
        chosen[start:stop] = dequantize(values, part, grid)

    if weight.is_cpu:
        by_rows(weight, tile, grid)
    else:
        height = 1 if grid.block_structure is None else grid.block_structure[0]
        most = DEVICE_ELEMENTS // max(1, weight.shape[1])
        even_tiles(weight.shape[0], most, tile, multiple=height)
    return Quantized(
        weight=chosen,
        codes=codes,
        scale=qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
    )


def _share(qparams: QParams, grid: Grid, start: int, stop: int) -> QParams:
    zero_point = qparams.zero_point
    return QParams(
        scale=share(qparams.scale, grid, start, stop),
        zero_point=None if zero_point is None else share(zero_point, grid, start, stop),
        global_scale=qparams.global_scale,
    )


def nearest(weight: Tensor, qparams: QParams, grid: Grid) -> tuple[Tensor, Tensor]:
    """The nearest code of every entry of `weight` [out, in], and the float32 values of the codes.

    The quotient has the wider dtype of weight and scale, in which the zero point is added; for
    E2M1 it is float32. A weight that is not finite has values that are not, among the integers.
    """
    rows, scale = weight.shape[0], qparams.scale
    if qparams.global_scale is not None:
        scale = scale / qparams.global_scale
    four = grid.type == "float" and grid.num_bits == 4
    given = weight.float() if four else weight
    if loops.loops_for(weight) == "triton":
        from stages.compress.solvers.rtn_triton import nearest_values

        values = nearest_values(given, scale, qparams.zero_point, grid)
        return encode(values, grid, signed_zero=True), values
    x = by_scale_of_row(torch.div, given, expand_rows(scale, grid, rows), grid)
    if four:
        codes = nearest_fp4(x.float())
        return codes, decode(codes)
    if grid.type == "float":
        codes = to_e4m3(round_to(x, grid.codes) if grid.num_bits == 6 else x)
        return codes, codes.float()
    if qparams.zero_point is not None:
        zero = expand_rows(qparams.zero_point.to(weight.dtype), grid, rows)
        x = by_scale_of_row(torch.add, x, zero, grid)
    values = x.clamp(grid.codes.low, grid.codes.high).round().float()
    return values.to(torch.int8), values


def dequantize(values: Tensor, qparams: QParams, grid: Grid) -> Tensor:
    """float32 [out, in]: the weight that the values of codes [out, in] mean."""
    scale, zero = expand(qparams, grid, values.shape[0])
    shifted = by_scale_of_row(torch.sub, values, zero, grid)
    return by_scale_of_row(torch.mul, shifted, scale, grid)


def dequantized(codes: Tensor, qparams: QParams, grid: Grid) -> Quantized:
    """The weight that ``codes`` mean under stored parameters: float32 [out, in], exact values."""
    return Quantized(
        weight=dequantize(codes, qparams, grid),
        codes=encode(codes, grid),
        scale=qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
    )


def with_codes(found: Quantized, grid: Grid) -> Quantized:
    """`found`, and the codes of its weight where it comes without: the nearest ones.

    This is the one place where a weight that was chosen is divided by its scale, for solvers of
    plugins that give a weight alone. Raises NumericalError where it is none that codes stand for,
    to half a unit of bfloat16, and ValueError for codes of a dtype or shape that does not fit.
    """
    if found.codes is not None:
        wanted = (code_dtype(grid), found.weight.shape)
        if (found.codes.dtype, found.codes.shape) != wanted:
            raise ValueError(
                f"codes are {found.codes.dtype} {list(found.codes.shape)}, not "
                f"{wanted[0]} {list(wanted[1])}"
            )
        return found
    qparams = QParams(
        scale=found.scale, zero_point=found.zero_point, global_scale=found.global_scale
    )
    made = rtn(found.weight if found.original is None else found.original, grid, qparams)
    if bool(((made.weight - found.weight).abs() > made.weight.abs() * HALF_UNIT).any()):
        raise NumericalError(
            name="weight",
            reason="the solver's weight has entries that no codes under its scales stand for",
            remedy="let the solver give (code - zero_point) * scale, or the codes themselves",
        )
    return replace(found, codes=made.codes)
