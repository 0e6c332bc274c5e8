"""Quantized attention states: what is stored of them, and how engines quantize them.

The key/value cache (`kv_cache_scheme`) holds keys and values in few bits; quantized attention also
rounds the queries. Names and shapes are those of vLLM's loader: `k_scale`, `v_scale`, `q_scale`
beside the projections, [1] for strategy tensor and [heads, 1, 1] for attn_head.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import (
    calculate_qparams,
    compute_dynamic_scales_and_zp,
    generate_gparam,
)
from torch import Tensor, nn


def state_params(
    state: str, limits: Tensor, args: QuantizationArgs, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The stored tensors of one state by local name, from its range.

    limits: float32 [heads, 2], the smallest and largest value of each head.
    """
    low, high = limits[:, 0].to(dtype), limits[:, 1].to(dtype)
    if args.strategy == "attn_head":
        low, high = low.reshape(-1, 1, 1), high.reshape(-1, 1, 1)
    else:
        low, high = low.amin().reshape(1), high.amax().reshape(1)
    if args.strategy == "tensor_group":
        return {f"{state}_global_scale": generate_gparam(low, high)}
    scale, zero_point = calculate_qparams(low, high, args)
    found = {f"{state}_scale": scale}
    return found if args.symmetric else {**found, f"{state}_zero_point": zero_point}


def quantize_state(
    state: str, value: Tensor, params: Mapping[str, Tensor], args: QuantizationArgs, at: nn.Module
) -> Tensor:
    """`value` [b, heads, T, head size] as an engine reads it back, in the same dtype.

    `params` are the tensors of :func:`state_params`; `at` is the attention module.
    """
    wide = value.float()
    scale, zero_point = params.get(f"{state}_scale"), params.get(f"{state}_zero_point")
    global_scale = params.get(f"{state}_global_scale")
    if args.strategy == "tensor_group":
        scale, zero_point = compute_dynamic_scales_and_zp(
            value=wide, args=args, module=at, global_scale=global_scale
        )
    rounded: Tensor = fake_quantize(
        wide,
        None if scale is None else scale.to(wide.device).float(),
        None if zero_point is None else zero_point.to(wide.device),
        args,
        global_scale=None if global_scale is None else global_scale.to(wide.device),
    )
    return rounded.to(value.dtype)
