"""Attention states rounded in a forward pass, as engines round them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
)
from torch import Tensor, nn

from stages.formats.cache import quantize_state
from stages.formats.state_names import STATES
from stages.model.attention import attention_modules, attention_states
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.skeleton import Skeleton
from stages.weights import WeightSource


@dataclass(frozen=True, kw_only=True, slots=True)
class StateRules:
    """How the states of attention modules (by module-tree name) are quantized.

    `args` is by state (q, k, v); `params` are the stored tensors by local name (`k_scale`).
    """

    args: Mapping[str, QuantizationArgs] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)


def state_rules(
    source: WeightSource, config: QuantizationConfig, blueprint: Blueprint
) -> StateRules:
    """What a checkpoint says of its attention states."""
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
            read = source.read(stored[prefix])
            params[module] = {name.rpartition(".")[2]: tensor for name, tensor in read.items()}
    return StateRules(args=args, params=params)


def attention_prefixes(layers: Iterable[Subgraph]) -> dict[str, str]:
    """Module name -> checkpoint prefix of everything in some layers that holds Linears."""
    return {
        linear.name.rpartition(".")[0]: linear.prefix.rpartition(".")[0]
        for layer in layers
        for linear in layer.linears
    }


@contextmanager
def simulated_states(
    skeleton: Skeleton, layers: Iterable[int], rules: StateRules
) -> Iterator[None]:
    """Within it the states of these layers are what an engine reads back; nothing without rules."""
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
