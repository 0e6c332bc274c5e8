"""Scales that minimise the L^p error of the weight itself."""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from stages.compress.grid import QParams
from stages.compress.observers.search import search


def observe(
    weight: Tensor,
    args: QuantizationArgs,
    *,
    importance: Tensor | None = None,
    global_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
    maxshrink: float = 0.20,
    grid: int = 100,
    norm: float = 2.4,
    expand: float = 1.0,
) -> QParams:
    """Shrink each range by 1/grid at a time, at most by ``maxshrink``; keep the least error.

    weight [out, in]; ``importance`` plays no part. ``expand`` > 1 starts beyond the range, which
    pays where codes are unevenly spaced (NVFP4: expand 1.8, maxshrink 0.556, grid 200).
    """
    del importance
    steps = max(1, int(maxshrink * grid))
    return search(
        weight,
        args,
        factors=[expand * (1 - step / grid) for step in range(steps)],
        norm=norm,
        importance=None,
        global_scale=global_scale,
        dtype=dtype,
    )
