"""Round to nearest: every weight for itself."""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from torch import Tensor

from stages.compress.grid import Grid, QParams, Quantized, column_scale, expand, grid_of
from stages.formats.fp4_packing import fits_fp4, fp4_of, fp4_values
from stages.formats.row_blocks import by_rows, share


def rtn(weight: Tensor, args: QuantizationArgs, qparams: QParams) -> Quantized:
    """The nearest code of every entry of ``weight`` [out, in] under fixed parameters.

    The division runs in the weight's own dtype, as it does when a checkpoint is compressed
    without a solver: hand over bfloat16 to have those codes, float32 to have the nearest ones.
    """
    chosen = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)

    def tile(start: int, stop: int) -> None:
        part = _share(qparams, args, start, stop)
        chosen[start:stop] = _nearest(weight[start:stop], args, part)

    by_rows(weight, tile, args)
    return Quantized(
        weight=chosen,
        scale=qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
        original=weight,
    )


def _share(qparams: QParams, args: QuantizationArgs, start: int, stop: int) -> QParams:
    zero_point = qparams.zero_point
    return QParams(
        scale=share(qparams.scale, args, start, stop),
        zero_point=None if zero_point is None else share(zero_point, args, start, stop),
        global_scale=qparams.global_scale,
    )


def _nearest(weight: Tensor, args: QuantizationArgs, qparams: QParams) -> Tensor:
    zero_point = qparams.zero_point
    if fits_fp4(weight, args):
        codes = fp4_values(fp4_of(weight, qparams.scale, qparams.global_scale))
    else:
        codes = quantize(
            x=weight,
            scale=qparams.scale,
            zero_point=torch.zeros_like(qparams.scale) if zero_point is None else zero_point,
            args=args,
            global_scale=qparams.global_scale,
        ).float()
    return dequantized(codes, qparams, grid_of(args, qparams.scale.dtype)).weight


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
