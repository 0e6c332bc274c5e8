"""Module patch: routed experts as Linears instead of transformers' fused 3-D parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from pipeline.errors import UserError
from stages.model.experts.by_order import Route, route_of
from stages.model.experts.containers import activation_of, joined, layout_of
from stages.model.experts.cut import Cut
from stages.model.experts.layout import DOWN, GATE, GATE_UP, SCORED, UP, Layout

MERGE, CONCATENATE = "MergeModulelist", "Concatenate"
PER_EXPERT = {
    (GATE_UP, (MERGE, CONCATENATE)): (GATE, UP),
    (UP, (MERGE,)): (UP,),
    (DOWN, (MERGE,)): (DOWN,),
}
"""Fused parameter and its operations -> Linears of one expert, in the order of its sources."""


class LinearExpert(nn.Module):
    """One expert: down(act(gate(x)) * up(x)), or down(act(up(x))); weights are [out, in]."""

    def __init__(self, layout: Layout, dtype: torch.dtype) -> None:
        super().__init__()
        linear = partial(nn.Linear, bias=layout.bias, device="meta", dtype=dtype)
        if layout.gate:
            self.gate_proj = linear(layout.hidden, layout.intermediate)
        self.up_proj = linear(layout.hidden, layout.intermediate)
        self.down_proj = linear(layout.intermediate, layout.hidden)


class LinearExperts(nn.ModuleList):
    """Experts 0, 1, ... as modules, with the interface of the container that they replace.

    `send_all`: every token also goes through every expert, so that hooks on their Linears see all
    tokens; the output is still that of the routed experts, to the bit. `on_rows` is called with the
    row numbers (int64 [n]) of the tokens that the next expert's Linears see, `on_output` with the
    number of an expert, the rows routed to it, its output for them [n, H] and the gate's values [n]
    that it is multiplied by (None where its inputs were).
    """

    def __init__(
        self,
        experts: list[LinearExpert],
        layout: Layout,
        activation: Callable[[Tensor], Tensor],
        route: Route | None = None,
    ) -> None:
        super().__init__(experts)
        self.route = route
        self.layout = layout
        self.activation = activation
        self.send_all = False
        self.on_rows: Callable[[Tensor | None], None] | None = None
        self.on_output: Callable[[int, Tensor, Tensor, Tensor | None], None] | None = None

    @classmethod
    def of(cls, module: nn.Module) -> LinearExperts:
        """The Linears of a container; UserError for one of another protocol."""
        layout, activation = layout_of(module), activation_of(module)
        if layout is None or activation is None:
            raise UserError(
                f"the experts of {type(module).__name__} are laid out in a way that cannot be "
                "taken apart into Linears",
                remedy="use a model whose experts follow transformers' protocol (up_proj or "
                "gate_up_proj, and down_proj), or add a patch for this class",
            )
        dtype = next(module.parameters()).dtype
        with no_init_weights():
            experts = [LinearExpert(layout, dtype) for _ in range(layout.experts)]
        route = route_of(module) if layout.arguments == SCORED else None
        return cls(experts, layout, activation, route)

    def claim(self, target: str, source: int, index: int, operations: tuple[str, ...]) -> str:
        """The Linear weight that takes one checkpoint tensor; see stages.model.module_patches."""
        linears = PER_EXPERT.get((target, operations))
        if linears is not None and index >= len(self) and self.layout.identities:
            return ""  # the numbers of experts that hand their input on are never read
        if linears is None or index >= len(self):
            raise UserError(
                f"the checkpoint's experts make {target!r} by {operations}, which cannot be undone",
                remedy="use a checkpoint with one tensor for each expert's gate, up and down",
            )
        return f"{index}.{linears[source]}.weight"

    def cuts(
        self, target: str, source: int, stored: str, operations: tuple[str, ...]
    ) -> dict[str, Cut]:
        """The Linears' parameters as parts of one fused checkpoint tensor; empty if it is none."""
        if target == GATE_UP and operations == (CONCATENATE,):
            return self.layout.whole((GATE, UP)[source], stored)
        return self.layout.cuts(target, stored, operations)

    def forward(
        self,
        hidden: Tensor,
        top_k_index: Tensor | None = None,
        top_k_weights: Tensor | None = None,
    ) -> Tensor:
        """Weighted sum of the routed experts' outputs.

        hidden: [n, H] or [b, T, H], and so is the result; top_k_index: int64 [n, k]; top_k_weights:
        [n, k]. A container that routes by itself has the router's logits [n, experts] in place of
        both. Without anything `hidden` is [experts x n, H], the tokens of one expert after those of
        another (zeros where a token is not routed to it).
        """
        if top_k_index is not None and top_k_weights is None and self.route is not None:
            top_k_index, top_k_weights = self.route(top_k_index)
        if top_k_index is None or top_k_weights is None:
            return self._of_sorted(hidden)
        shape = hidden.shape
        return self._of_routed(hidden.flatten(0, -2), top_k_index, top_k_weights).view(shape)

    def _of_routed(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        if self.send_all:
            for expert in self:
                self._through(cast(LinearExpert, expert), hidden)
        output = torch.zeros_like(hidden)
        for index, expert in enumerate(self):
            rows, place = torch.where(top_k_index == index)
            if rows.numel():
                result = self._routed(cast(LinearExpert, expert), hidden[rows], rows)
                if self.on_output is not None:
                    self.on_output(index, rows, result, top_k_weights[rows, place])
                result = result * top_k_weights[rows, place, None]
                output.index_add_(0, rows, result.to(output.dtype))
        if self.layout.identities:
            rows, place = torch.where(top_k_index >= len(self))
            result = hidden[rows] * top_k_weights[rows, place, None]
            output.index_add_(0, rows, result.to(output.dtype))
        return output

    def _of_sorted(self, hidden: Tensor) -> Tensor:
        by_expert = hidden.view(len(self), -1, hidden.shape[-1])
        if self.send_all:
            # what a token's own experts are given of it, given to every expert
            everything = by_expert.sum(dim=0)
            for expert in self:
                self._through(cast(LinearExpert, expert), everything)
        output = torch.zeros_like(by_expert)
        for index, expert in enumerate(self):
            x = by_expert[index]
            rows = x.any(dim=-1).nonzero().flatten()
            if self.layout.bias:  # an expert then makes something even of zeros
                rows = torch.arange(len(x), device=x.device)
            if rows.numel():
                result = self._routed(cast(LinearExpert, expert), x[rows], rows)
                if self.on_output is not None:
                    self.on_output(index, rows, result, None)
                output[index, rows] = result
        return output.view(-1, hidden.shape[-1])

    def _routed(self, expert: LinearExpert, x: Tensor, rows: Tensor) -> Tensor:
        if self.send_all:
            # hooks have seen these tokens already: calling `forward` of a Linear runs no hooks
            return self._through(expert, x, hooks=False)
        if self.on_rows is not None:
            self.on_rows(rows)
        result = self._through(expert, x)
        if self.on_rows is not None:
            self.on_rows(None)
        return result

    def _through(self, expert: LinearExpert, x: Tensor, *, hooks: bool = True) -> Tensor:
        def run(linear: nn.Module, x: Tensor) -> Tensor:
            result: Tensor = linear(x) if hooks else linear.forward(x)
            return result

        if self.layout.gate:
            gate, up = run(expert.gate_proj, x), run(expert.up_proj, x)
            inner = self.activation(joined(gate, up, interleaved=self.layout.interleaved))
        else:
            inner = self.activation(run(expert.up_proj, x))
        return run(expert.down_proj, inner)


def fits(module: nn.Module) -> bool:
    """Whether a module is a container of experts that `LinearExperts` can replace."""
    return layout_of(module) is not None
