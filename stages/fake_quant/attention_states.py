"""Fake quantization of the KV cache and of attention: qparams, their tensors, and rounded states.

A quantized KV cache (`kv_cache_scheme`) holds keys and values in few bits; quantized attention also
rounds the queries. Names and shapes are those of vLLM's loader: `k_scale`, `v_scale`, `q_scale`
beside the projections, [1] for strategy tensor and [heads, 1, 1] for attn_head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
)
from compressed_tensors.quantization.lifecycle.forward import fake_quantize
from compressed_tensors.quantization.utils import (
    calculate_qparams,
    compute_dynamic_scales_and_zp,
    generate_gparam,
)
from torch import Tensor, nn

from stages.model.attention_hooks import attention_modules, attention_states
from stages.model.blueprint import STATES, Blueprint, Subgraph
from stages.model.skeleton import Skeleton
from stages.weights import WeightSource


def state_params(
    state: str, limits: Tensor, args: QuantizationArgs, dtype: torch.dtype
) -> dict[str, Tensor]:
    """The qparams of one state by local name, from its range.

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
    """Fake-quantize a state [b, heads, T, head size]; the dtype stays the same.

    `params` are the qparams of :func:`state_params`; `at` is the attention module.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class StateRules:
    """Quantization args by state (q, k, v), and qparams by module-tree name and local name.

    An example of a local name is `k_scale`.
    """

    args: Mapping[str, QuantizationArgs] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def state_rules(
    source: WeightSource, config: QuantizationConfig, blueprint: Blueprint
) -> StateRules:
    """The rules of a checkpoint's attention states; empty if it quantizes none."""
    args = {}
    if config.kv_cache_scheme is not None:
        args = dict.fromkeys(("k", "v"), config.kv_cache_scheme)
    for group in config.config_groups.values():
        if isinstance(group, QuantizationScheme) and group.weights is None:
            args |= dict.fromkeys(STATES, group.input_activations)
    if not args:
        return StateRules()
    stored: dict[str, list[str]] = {}
    for name in source.specs():
        prefix, _, part = name.rpartition(".")
        if part.partition("_")[0] in args:
            stored.setdefault(prefix, []).append(name)
    params = {}
    for module, prefix in attention_prefixes(blueprint.layers).items():
        if prefix in stored:
            tensors = source.read(stored[prefix])
            params[module] = {name.rpartition(".")[2]: tensor for name, tensor in tensors.items()}
    return StateRules(args=args, params=params)


def attention_prefixes(layers: Iterable[Subgraph]) -> dict[str, str]:
    """Module name -> checkpoint prefix of all modules of some layers that contain Linears."""
    return {
        linear.name.rpartition(".")[0]: linear.prefix.rpartition(".")[0]
        for layer in layers
        for linear in layer.linears
    }


@contextmanager
def simulated_states(
    skeleton: Skeleton, layers: Iterable[int], rules: StateRules
) -> Iterator[None]:
    """Context in which the states of these layers are fake-quantized; no-op without rules."""
    layers = list(layers)
    if not rules.args:
        yield
        return
    modules: Mapping[str, nn.Module] = attention_modules(skeleton, layers)

    def rounded(name: str, state: str, value: Tensor) -> Tensor:
        if state not in rules.args or name not in rules.params:
            return value
        args, params = rules.args[state], rules.params[name]
        return quantize_state(state, value, params, args, modules[name])

    with attention_states(skeleton, layers, rounded):
        yield
