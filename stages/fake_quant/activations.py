"""Fake quantization of the inputs of Linears in a forward pass, as engines quantize them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp
from torch import Tensor, nn

from stages.formats.input_params import InputRule


def quantize_input(value: Tensor, rule: InputRule, module: nn.Module) -> Tensor:
    """Fake-quantize an input [..., in] as an engine's kernel sees it; the dtype stays the same.

    A scale for each token is one for each row of `in` values, whatever dimensions stand before it:
    routed experts are called with [tokens, in]. compressed-tensors takes the first two of three
    dimensions for tokens, and gives one scale to all of a matrix. Raises ValueError if a calibrated
    parameter is missing.
    """
    if value.numel() == 0:
        return value
    if value.dim() != 3:
        return quantize_input(value.reshape(1, -1, value.shape[-1]), rule, module).reshape(
            value.shape
        )
    params, dynamic = rule.params.on(value.device), rule.args.dynamic
    scale, zero_point = params.scale, params.zero_point
    if dynamic is not True and params.scale is None and params.global_scale is None:
        raise ValueError("a calibrated input needs its scale")
    if dynamic:
        scale, zero_point = compute_dynamic_scales_and_zp(
            value=value, args=rule.args, module=module, global_scale=params.global_scale
        )
    quantized: Tensor = fake_quantize(
        value, scale, zero_point, rule.args, global_scale=params.global_scale
    )
    return quantized.to(value.dtype)


@contextmanager
def simulated_inputs(
    model: nn.Module, rules: Mapping[str, InputRule], *, straight_through: bool = False
) -> Iterator[None]:
    """Context in which the modules of `model` that `rules` names get fake-quantized inputs.

    straight_through: a backward pass takes the quantization for the identity.
    """
    with ExitStack() as stack:
        for name, rule in rules.items():
            hook = _hook(rule, straight_through)
            handle = model.get_submodule(name).register_forward_pre_hook(hook)
            stack.callback(handle.remove)
        yield


def _hook(
    rule: InputRule, straight_through: bool
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    moved: dict[torch.device, InputRule] = {}  # once for each device, not in every forward

    def quantized(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        device = args[0].device
        if device not in moved:
            moved[device] = replace(rule, params=rule.params.on(device))
        value: Tensor = args[0]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not straight_through):
            rounded = quantize_input(value, moved[device], module)
        if straight_through and value.requires_grad:
            rounded = rounded + (value - value.detach())  # adds 0, and the gradient's way
        return (rounded, *args[1:])

    return quantized
