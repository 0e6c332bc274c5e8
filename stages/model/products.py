"""Matrix products of 16-bit models on CPUs that have no instructions for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

HALVES = (torch.bfloat16, torch.float16)
FEW_ROWS = 4
"""Below it a product reads the weight once either way, and converting it costs more."""


def native(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether Linears in `dtype` run at full speed on `device`."""
    if device.type != "cpu" or dtype not in HALVES:
        return True
    if not torch.backends.mkldnn.is_available():
        return False
    ops = torch.ops.mkldnn
    supported = (
        ops._is_mkldnn_bf16_supported()
        if dtype == torch.bfloat16
        else ops._is_mkldnn_fp16_supported()
    )
    return bool(supported)


def widen(model: nn.Module) -> None:
    """Let the 16-bit Linears of `model` multiply and add in float32 and round once at the end.

    It is what an engine's 16-bit product with a float32 accumulator does, up to the order of
    sums, and several times as fast as torch's own where the CPU has no such product.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight.dtype in HALVES:
            module.__dict__["forward"] = partial(_wide, module, module.forward)


def _wide(module: nn.Linear, plain: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    if x.numel() < FEW_ROWS * x.shape[-1]:
        return plain(x)
    bias = None if module.bias is None else module.bias.float()
    return functional.linear(x.float(), module.weight.float(), bias).to(x.dtype)
