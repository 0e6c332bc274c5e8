"""Round to nearest: every weight for itself."""

from __future__ import annotations

from dataclasses import replace

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import quantize
from torch import Tensor

from stages.compress.grid import Grid, QParams, Quantized, column_scale, expand, grid_of


def rtn(weight: Tensor, args: QuantizationArgs, qparams: QParams) -> Quantized:
    """The nearest code of every entry of ``weight`` [out, in] under fixed parameters.

    The division runs in the weight's own dtype, as it does when a checkpoint is compressed
    without a solver: hand over bfloat16 to have those codes, float32 to have the nearest ones.
    """
    zero_point = qparams.zero_point
    codes = quantize(
        x=weight,
        scale=qparams.scale,
        zero_point=torch.zeros_like(qparams.scale) if zero_point is None else zero_point,
        args=args,
        global_scale=qparams.global_scale,
    )
    chosen = dequantized(codes.float(), qparams, grid_of(args, qparams.scale.dtype))
    return replace(chosen, original=weight)


def dequantized(codes: Tensor, qparams: QParams, grid: Grid) -> Quantized:
    """The weight that ``codes`` (float32 [out, in]) mean under stored parameters."""
    scale, zero = expand(qparams, grid, codes.shape[0])
    column = column_scale(grid, codes.shape[1], codes.device)
    return Quantized(
        weight=(codes - zero[:, column]) * scale[:, column],
        scale=qparams.scale,
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
    )
