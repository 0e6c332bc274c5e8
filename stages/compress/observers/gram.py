"""Scales that minimise the output error as the diagonal of the Gram matrix predicts it.

For one row, E[((w - q) x)^2] = e H e^T with H = E[x x^T]; with errors of neighbouring columns
uncorrelated that is sum_j H_jj e_j^2, a separable problem per group that a fine search solves.
The conditional observer weighs by the squared diagonal of GPTQ's triangular factor instead: the
part of a column's variance that columns solved after it cannot make up for.
"""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.observers.search import search


def observe(
    weight: Tensor,
    args: QuantizationArgs,
    *,
    importance: Tensor | None = None,
    global_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
    steps: int = 32,
    lowest: float = 0.5,
) -> QParams:
    """``steps`` ranges from the largest down to ``lowest`` of it, squared error weighted by H_jj.

    weight [out, in]; ``importance`` float [in] is H_jj or the conditional variance (any
    multiple), required: ValueError without it. Float codes are also tried on wider ranges, up to
    1.6 times: their steps are uneven, so a group may fit better below the top binade. Integer
    ranges start at 1.08, where a symmetric one clips nothing though it has one positive code less.
    """
    if importance is None:
        raise ValueError("the gram observer needs a weight for every input channel")
    grid = grid_of(args, dtype)
    highest = 1.6 if grid.type == "float" else 1.08
    step = (highest - lowest) / (steps - 1)
    return search(
        weight,
        args,
        factors=[highest - index * step for index in range(steps)],
        norm=2.0,
        importance=importance,
        global_scale=global_scale,
        dtype=dtype,
    )
