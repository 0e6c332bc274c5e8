"""Module patch: routed experts as Linears instead of transformers' fused 3-D parameters."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from transformers.initialization import no_init_weights

from pipeline.errors import UserError

MERGE, CONCATENATE = "MergeModulelist", "Concatenate"
CLAIMS = {
    ("gate_up_proj", (MERGE, CONCATENATE)): ("gate_proj", "up_proj"),
    ("down_proj", (MERGE,)): ("down_proj",),
}
"""Fused parameter and its operations -> Linears of one expert, in the order of its sources."""


class LinearExpert(nn.Module):
    """One gated expert: down(act(gate(x)) * up(x)), with weights [out, in]."""

    def __init__(self, hidden: int, intermediate: int, like: Tensor) -> None:
        super().__init__()
        linear = partial(nn.Linear, bias=False, device="meta", dtype=like.dtype)
        self.gate_proj = linear(hidden, intermediate)
        self.up_proj = linear(hidden, intermediate)
        self.down_proj = linear(intermediate, hidden)


class LinearExperts(nn.ModuleList):
    """Experts 0, 1, ... as modules, with the interface of the container that they replace.

    `send_all`: every token also goes through every expert, so that hooks on their Linears see all
    tokens; the output is still that of the routed experts, to the bit. `on_rows` is called with the
    row numbers (int64 [n]) of the tokens that the next expert's Linears see.
    """

    def __init__(self, experts: list[LinearExpert], gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__(experts)
        self.gate = gate
        self.send_all = False
        self.on_rows: Callable[[Tensor | None], None] | None = None

    @classmethod
    def of(cls, module: nn.Module) -> LinearExperts:
        """The Linears of a container with `gate_up_proj` [E, 2I, H] and `down_proj` [E, H, I].

        Raises UserError for a container of another layout.
        """
        layout = {"has_gate": True, "has_bias": False, "is_transposed": False}
        layout["is_concatenated"] = True
        if any(getattr(module, name, None) is not value for name, value in layout.items()):
            raise UserError(
                f"the experts of {type(module).__name__} are laid out in a way that cannot be "
                "taken apart into gate, up and down",
                remedy="use a model whose experts have a gate, no bias and are not interleaved",
            )
        fused = cast(Tensor, module.gate_up_proj)
        count, doubled, hidden = fused.shape
        with no_init_weights():
            experts = [LinearExpert(hidden, doubled // 2, fused) for _ in range(count)]
        return cls(experts, cast(Callable[[Tensor], Tensor], module._apply_gate))

    def claim(self, target: str, source: int, index: int, operations: tuple[str, ...]) -> str:
        """The Linear weight that takes one checkpoint tensor; see stages.model.module_patches."""
        linears = CLAIMS.get((target, operations))
        if linears is None or index >= len(self):
            raise UserError(
                f"the checkpoint's experts make {target!r} by {operations}, not one by one",
                remedy="use a checkpoint with one tensor for each expert's gate, up and down",
            )
        return f"{index}.{linears[source]}.weight"

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Weighted sum of the routed experts' outputs.

        hidden: [n, H]; top_k_index: int64 [n, k]; top_k_weights: [n, k]; returns [n, H].
        """
        if self.send_all:
            for expert in self:
                self._through(cast(LinearExpert, expert), hidden)
        output = torch.zeros_like(hidden)
        for index, expert in enumerate(self):
            rows, place = torch.where(top_k_index == index)
            if rows.numel():
                result = self._routed(cast(LinearExpert, expert), hidden, rows)
                result = result * top_k_weights[rows, place, None]
                output.index_add_(0, rows, result.to(output.dtype))
        return output

    def _routed(self, expert: LinearExpert, hidden: Tensor, rows: Tensor) -> Tensor:
        if not self.send_all:
            if self.on_rows is not None:
                self.on_rows(rows)
            result = self._through(expert, hidden[rows])
            if self.on_rows is not None:
                self.on_rows(None)
            return result
        # hooks have seen these tokens already: calling `forward` of a Linear runs no hooks
        x = hidden[rows]
        gated = torch.cat((expert.gate_proj.forward(x), expert.up_proj.forward(x)), dim=-1)
        return expert.down_proj.forward(self.gate(gated))

    def _through(self, expert: LinearExpert, x: Tensor) -> Tensor:
        gated = torch.cat((expert.gate_proj(x), expert.up_proj(x)), dim=-1)
        result: Tensor = expert.down_proj(self.gate(gated))
        return result
