"""The scale search of llm-compressor 0.14, in other words, to judge ours by.

tests/differential shows that it gives that program's bytes.
"""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.observers.range import by_scale

MSE = {"maxshrink": 0.20, "patience": 5, "grid": 100.0, "norm": 2.4, "expand": 1.0}
IMATRIX = {"maxshrink": 0.95, "patience": 5, "grid": 20, "norm": 3.0, "expand": 1.0}
WIDER = {"maxshrink": 1 - 0.8 / 1.8, "patience": 1000, "grid": 200.0, "norm": 2.4, "expand": 1.8}


def searched(
    weight: Tensor,
    args: QuantizationArgs,
    importance: Tensor | None = None,
    *,
    maxshrink: float,
    patience: int,
    grid: float,
    norm: float,
    expand: float,
    last: bool = False,
) -> QParams:
    """Parameters of a weight [out, in]; all arithmetic in its dtype, except under `importance`.

    `importance` float [in] (its search includes the `last` step and sums in float32).
    """
    plain = args.model_copy(update={"scale_dtype": None} if args.strategy == "tensor_group" else {})
    token = plain.model_copy(update={"strategy": "token"})
    values = by_scale(weight, grid_of(args, weight.dtype))
    low, high = values.amin(dim=-1) * expand, values.amax(dim=-1) * expand
    wide = torch.float32 if last else weight.dtype
    least = torch.full(low.shape, torch.finfo(wide).max, dtype=wide)
    best, idle = [low.clone(), high.clone()], 0
    factor: Tensor | float = 1.0
    if importance is not None:
        mean = importance.float() / (importance.float().mean() + torch.finfo(torch.float32).tiny)
        factor = by_scale(mean.expand(weight.shape[0], -1), grid_of(args, weight.dtype))
    for step in range(max(1, int(maxshrink * grid)) + last):
        p = 1 - step / grid
        scale, zero = calculate_qparams(low * p, high * p, plain)
        q = fake_quantize(values, scale.unsqueeze(-1), zero.unsqueeze(-1), token).to(wide)
        error = ((q - values.to(wide)).abs().pow(norm) * factor).sum(dim=-1)
        better = error < least
        idle = 0 if bool(better.any()) else idle + 1
        if idle >= patience:
            break
        least = torch.where(better, error, least)
        best = [torch.where(better, b * p, old) for b, old in zip((low, high), best, strict=True)]
    shared = None
    if args.strategy == "tensor_group":
        largest = torch.stack((best[1].max(), -best[0].min())).max().reshape(1)
        shared = generate_gparam(-largest, largest)
    scale, zero = calculate_qparams(best[0], best[1], args, global_scale=shared)
    return QParams(scale=scale, zero_point=None if args.symmetric else zero, global_scale=shared)
