"""Expert containers whose weights go by other names, read by their order and shapes.

Aria has `fc1.weight` and `fc2.weight` in grouped products, DBRX `w1`, `v1` and `w2` with the
experts' matrices one below the other. The first weights are taken for gate and up (or both in one),
the last for down; what is read so is proven on numbers before anything relies on it
(:mod:`stages.model.structure.expert_proof`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

from torch import Tensor, nn
from transformers.activations import ACT2FN

from stages.model.experts.layout import (
    DOWN,
    GATE,
    GATE_UP,
    ROUTED,
    SCORED,
    UP,
    Layout,
    transposed_of,
)

ORDERS = {2: (GATE_UP, DOWN), 3: (GATE, UP, DOWN)}
COUNTS = ("num_experts", "moe_num_experts", "n_routed_experts", "num_local_experts")
WIDTHS = ("hidden_size", "hidden_dim")
ROUTE = "route_tokens_to_experts"

Shape = tuple[int, ...]
Route = Callable[[Tensor], tuple[Tensor, Tensor]]


def layout_by_order(module: nn.Module) -> Layout | None:
    """The layout of a container with parameters of any names; None for a module that is none.

    It takes tokens, indices and weights, or tokens and the router's logits, and has two or three
    weights and no other parameter. One with transformers' own names is none: its shapes have to be
    what it says of itself.
    """
    if {GATE_UP, UP, DOWN} & module._parameters.keys():
        return None
    count = _arguments(module)
    if count not in (ROUTED, SCORED) or (count == SCORED and route_of(module) is None):
        return None
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    order = ORDERS.get(len(shapes))
    experts = _number(module, COUNTS) or next(iter(shapes.values()), (0,))[0]
    flat = all(len(shape) == 2 for shape in shapes.values())
    if flat and experts:
        shapes = {n: (experts, s[0] // experts, s[1]) for n, s in shapes.items()}
    apart = order is not None and all(len(s) == 3 and s[0] == experts for s in shapes.values())
    if not apart or order is None or activation_by_order(module) is None:
        return None
    names = dict(zip(shapes, order, strict=True))
    first, *_, down = shapes.values()
    if len(order) == 2:
        transposed, turned = transposed_of(first, down, 2), False
    else:
        width = _number(module, WIDTHS)
        before, after = _hidden_at(first, width), _hidden_at(down, width)
        if before is None or after is None or first != tuple(shapes.values())[1]:
            return None
        # [experts, in, out]: the hidden size is what gate reads, and what down gives
        transposed = before == 1
        turned = transposed is not (after == 2)
    if transposed is None:
        return None
    inner, outer = (down[1], down[2]) if transposed != turned else (down[2], down[1])
    return Layout(
        experts=experts,
        hidden=outer,
        intermediate=inner,
        gate=True,
        bias=False,
        transposed=transposed,
        interleaved=False,
        identities=False,
        arguments=count,
        names=names,
        turned=frozenset({DOWN} if turned else ()),
        flat=flat,
    )


def route_of(module: nn.Module) -> Route | None:
    """The container's way from the router's logits to indices and weights; None if it has none."""
    route = getattr(module, ROUTE, None)
    return cast(Route, route) if callable(route) else None


def activation_by_order(module: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """act(gate) * up of a joined product [n, 2I], by the function that the container has.

    It is the one called `...act...` in the container or inside, or that which its config names.
    """
    held = [
        value
        for part in module.modules()
        for name, value in {**part._modules, **vars(part)}.items()
        if name.startswith("act") and callable(value)
    ]
    stated = getattr(getattr(module, "config", None), "hidden_act", None)
    if not held and stated in ACT2FN:
        held = [ACT2FN[stated]]
    if not held:
        return None
    function: Callable[[Tensor], Tensor] = held[0]

    def activation(joined: Tensor) -> Tensor:
        first, second = joined.chunk(2, dim=-1)
        return function(first) * second

    return activation


def _hidden_at(shape: Shape, width: int) -> int | None:
    """The dimension of experts' matrices that is the hidden one, 1 or 2; None unless one is."""
    fits = [dim for dim in (1, 2) if shape[dim] == width]
    return fits[0] if len(fits) == 1 else None


def _number(module: nn.Module, names: tuple[str, ...]) -> int:
    found = (getattr(module, name, None) for name in names)
    return next((value for value in found if isinstance(value, int)), 0)


def _arguments(module: nn.Module) -> int:
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)
