"""Expert containers of transformers, recognised by their protocol.

A container says of itself `has_gate`, `has_bias`, `is_transposed` and `is_concatenated`
(transformers' `use_experts_implementation`); one that does not is read from its shapes, and one
with other names by the order of its weights.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from stages.model.experts.by_order import activation_by_order, layout_by_order
from stages.model.experts.layout import (
    DOWN,
    GATE_UP,
    ROUTED,
    SORTED,
    UP,
    Layout,
    transposed_of,
)

FLAGS = ("has_gate", "has_bias", "is_transposed", "is_concatenated")


def layout_of(module: nn.Module) -> Layout | None:
    """The layout of an expert container; None for a module that is none, or an unknown one."""
    return _stated(module) or layout_by_order(module)


def _stated(module: nn.Module) -> Layout | None:
    """The layout of a container with transformers' names."""
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters(recurse=False)}
    gated = GATE_UP in shapes
    first = shapes.get(GATE_UP if gated else UP)
    down = shapes.get(DOWN)
    wanted = {GATE_UP if gated else UP, DOWN}
    biases = {f"{name}_bias" for name in wanted}
    if first is None or down is None or len(first) != 3 or len(down) != 3:
        return None
    if shapes.keys() not in (wanted, wanted | biases) or activation_of(module) is None:
        return None
    arguments = _arguments(module)
    said = [getattr(module, flag, None) for flag in FLAGS]
    has_bias = shapes.keys() == wanted | biases
    transposed = transposed_of(first, down, 2 if gated else 1, said[2])
    if transposed is None or arguments not in (ROUTED, SORTED):
        return None
    if None not in said and said[:2] != [gated, has_bias]:
        return None
    return Layout(
        experts=down[0],
        hidden=down[2] if transposed else down[1],
        intermediate=down[1] if transposed else down[2],
        gate=gated,
        bias=has_bias,
        transposed=transposed,
        interleaved=said[3] is False,
        identities=isinstance(getattr(module, "identity_expert", None), nn.Identity),
        arguments=arguments,
    )


def activation_of(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """What an expert does between its projections: [n, 2I] (or [n, I] without gate) -> [n, I].

    None if the container has neither `_apply_gate` nor an `act_fn`.
    """
    gate = getattr(module, "_apply_gate", None)
    act = getattr(module, "act_fn", None)
    gated = hasattr(module, GATE_UP)
    if gated and gate is not None:
        return cast(Callable[[Tensor], Tensor], gate)
    if not gated and not hasattr(module, UP):
        return activation_by_order(module)
    if not callable(act):
        return None
    function: Callable[[Tensor], Tensor] = act

    def activation(inner: Tensor) -> Tensor:
        return function(inner)

    if not gated:
        return activation  # a module would become one of the list of experts

    def gated_activation(joined: Tensor) -> Tensor:
        first, second = joined.chunk(2, dim=-1)
        return function(first) * second

    return gated_activation


def joined(gate: Tensor, up: Tensor, *, interleaved: bool) -> Tensor:
    """Outputs of gate and up [n, I] as the one tensor [n, 2I] of the fused product."""
    if interleaved:
        return torch.stack((gate, up), dim=-1).flatten(-2)
    return torch.cat((gate, up), dim=-1)


def _arguments(module: nn.Module) -> int:
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)
