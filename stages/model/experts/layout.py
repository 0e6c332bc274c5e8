"""Layout of the fused parameters of transformers' expert containers, and their parts.

A container says of itself `has_gate`, `has_bias`, `is_transposed` and `is_concatenated`
(transformers' `use_experts_implementation`); one that does not is read from its shapes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from stages.model.cut import Cut

GATE_UP, GATE, UP, DOWN = "gate_up_proj", "gate_proj", "up_proj", "down_proj"
FLAGS = ("has_gate", "has_bias", "is_transposed", "is_concatenated")
ROUTED, SORTED = 3, 1
"""Arguments of a container's forward: tokens, indices and weights; or tokens sorted by expert."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Sizes and layout of one container's fused parameters.

    Weights are [experts, out, in], or [experts, in, out] if `transposed`; the rows of gate and up
    are two halves, or alternate if `interleaved`. `bias`: every expert's Linears have one.
    `identities`: experts past the last one hand their input on. `arguments` is ROUTED or SORTED.
    """

    experts: int
    hidden: int
    intermediate: int
    gate: bool
    bias: bool
    transposed: bool
    interleaved: bool
    identities: bool
    arguments: int

    @property
    def linears(self) -> tuple[str, ...]:
        """Linears of one expert, in the order in which they are called."""
        return (GATE, UP, DOWN) if self.gate else (UP, DOWN)

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """Fused weight -> the Linears whose rows it holds."""
        return {GATE_UP: (GATE, UP), DOWN: (DOWN,)} if self.gate else {UP: (UP,), DOWN: (DOWN,)}

    def cuts(self, target: str, stored: str, operations: tuple[str, ...]) -> dict[str, Cut]:
        """Parameter of the patch -> part of the checkpoint tensor `stored` that holds it.

        transformers would make the fused parameter `target` of it by `operations`. Empty if they
        are unknown ones.
        """
        weight, bias = target.removesuffix("_bias"), target.endswith("_bias")
        linears = self.parameters().get(weight, ())
        transposed = (self.transposed != (operations == ("Transpose",))) and not bias
        if operations == ("Interleave",):
            interleaved = True
        elif operations in ((), ("Transpose",)):
            interleaved = self.interleaved
        else:
            return {}
        found: dict[str, Cut] = {}
        for expert in range(self.experts):
            for place, linear in enumerate(linears):
                start, stop, step = self._rows(len(linears), place, interleaved)
                found[f"{expert}.{linear}.{'bias' if bias else 'weight'}"] = Cut(
                    stored=stored,
                    index=expert,
                    start=start,
                    stop=stop,
                    step=step,
                    transposed=transposed,
                )
        return found

    def whole(self, linear: str, stored: str) -> dict[str, Cut]:
        """Parameter of the patch -> its matrix of a tensor that holds one Linear of all experts."""
        return {
            f"{expert}.{linear}.weight": Cut(
                stored=stored, index=expert, transposed=self.transposed
            )
            for expert in range(self.experts)
        }

    def _rows(self, count: int, place: int, interleaved: bool) -> tuple[int, int | None, int]:
        if count == 1:
            return 0, None, 1
        if interleaved:
            return place, None, count
        return place * self.intermediate, (place + 1) * self.intermediate, 1


def layout_of(module: nn.Module) -> Layout | None:
    """The layout of an expert container; None for a module that is none, or an unknown one."""
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
    transposed = _transposed(first, down, 2 if gated else 1, said[2])
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
    if not callable(act):
        return None
    function: Callable[[Tensor], Tensor] = act
    if not gated:
        return function

    def gated_activation(joined: Tensor) -> Tensor:
        first, second = joined.chunk(2, dim=-1)
        return function(first) * second

    return gated_activation


def joined(gate: Tensor, up: Tensor, *, interleaved: bool) -> Tensor:
    """Outputs of gate and up [n, I] as the one tensor [n, 2I] of the fused product."""
    if interleaved:
        return torch.stack((gate, up), dim=-1).flatten(-2)
    return torch.cat((gate, up), dim=-1)


def fused(layout: Layout, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The container's own parameters from those of its Linears: the inverse of `Layout.cuts`."""
    found: dict[str, Tensor] = {}
    for weight, linears in layout.parameters().items():
        for suffix in ("weight", "bias") if layout.bias else ("weight",):
            name = weight if suffix == "weight" else f"{weight}_bias"
            blocks = []
            for expert in range(layout.experts):
                rows = [parts[f"{expert}.{linear}.{suffix}"] for linear in linears]
                block = rows[0]
                if len(rows) == 2:
                    block = torch.stack(rows, 1) if layout.interleaved else torch.stack(rows)
                    block = block.flatten(0, 1)
                turn = layout.transposed and suffix == "weight"
                blocks.append(block.T if turn else block)
            found[name] = torch.stack(blocks)
    return found


def _arguments(module: nn.Module) -> int:
    parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in kinds for parameter in parameters)


def _transposed(
    first: tuple[int, ...], down: tuple[int, ...], parts: int, said: bool | None
) -> bool | None:
    """Whether weights are [in, out]; None if shapes (and what the class says) do not fit that."""
    fits = []
    if (first[1], first[2]) == (parts * down[2], down[1]):
        fits.append(False)
    if (first[2], first[1]) == (parts * down[1], down[2]):
        fits.append(True)
    if said is not None:
        return said if said in fits else None
    return fits[0] if len(fits) == 1 else None
