"""Scales that minimise the L^p error weighted by how strongly each input channel fires."""

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
    maxshrink: float = 0.95,
    grid: int = 20,
    norm: float = 3.0,
    expand: float = 1.0,
) -> QParams:
    """As :func:`stages.compress.observers.mse.observe`, each column weighted by E[x^2].

    ``importance`` float [in] is required: ValueError without it.
    """
    if importance is None:
        raise ValueError("the imatrix observer needs the mean square of every input channel")
    steps = max(1, int(maxshrink * grid))
    return search(
        weight,
        args,
        factors=[expand * (1 - step / grid) for step in range(steps + 1)],
        norm=norm,
        importance=importance,
        global_scale=global_scale,
        dtype=dtype,
    )
