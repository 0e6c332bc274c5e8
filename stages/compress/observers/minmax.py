"""Scales that cover the whole range of the weight."""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.observers.qparams import global_scale_within, qparams_of
from stages.compress.observers.range import bounds


def observe(
    weight: Tensor,
    args: QuantizationArgs,
    *,
    importance: Tensor | None = None,
    global_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
) -> QParams:
    """Smallest scales that clip nothing, for a weight [out, in] (float32 or 16 bits).

    Equal to the bit to the reference's memoryless min-max when the weight's values fit ``dtype``,
    the dtype of the checkpoint. ``importance`` plays no part. A tensor_group weight takes
    ``global_scale`` (float32 [1]) where several weights share one, else its own.
    """
    grid = grid_of(args, dtype)
    low, high = bounds(weight, grid)
    if global_scale is None and grid.strategy == "tensor_group":
        global_scale = global_scale_within(low, high, dtype)
    return qparams_of(low, high, args, global_scale=global_scale, dtype=dtype)
