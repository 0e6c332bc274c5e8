"""The modifier `smoothquant`: its options, and the transform it applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from stages.compress.modifiers.base import Transform

if TYPE_CHECKING:
    from stages.compress.layer.state import LayerState
    from stages.model.blueprint import Blueprint

LOOKED = {
    "norm": "a norm whose output only Linears and routers read",
    "linear": "a Linear whose output reaches Linears with every channel's factor kept",
}
PAIRS = tuple(LOOKED)


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothQuant(Transform):
    """Divides the channels of a module's output by a factor that its readers multiply back.

    `pairs`: "norm" smooths what norms feed, as the paper does; "linear" also v_proj -> o_proj and
    up_proj -> down_proj.
    """

    kind: ClassVar[str] = "smoothquant"

    smoothing_strength: float = 0.5
    """The paper's alpha: 0 leaves activations as they are, 1 moves all of their spread."""
    pairs: list[str] = field(default_factory=lambda: ["norm"])

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing_strength <= 1:
            raise UserError(
                f"smoothing_strength is {self.smoothing_strength}", remedy="give 0 to 1"
            )
        if not self.pairs or not set(self.pairs) <= set(PAIRS):
            raise UserError(f"pairs is {self.pairs}", remedy=f"choose from {', '.join(PAIRS)}")

    def statistics(self) -> frozenset[str]:
        return frozenset({"absmax"})

    def idle(self, blueprint: Blueprint) -> str:
        if any(pair.source_kind in self.pairs for x in blueprint.layers for pair in x.pairs):
            return ""
        looked = ", ".join(f"{kind} ({LOOKED[kind]})" for kind in self.pairs)
        return (
            f"{blueprint.model_type} has no pairs of modules between which a factor can move, "
            f"with a reader that is quantized; pairs: {looked}"
        )

    def rewrite(self, layer: LayerState) -> None:
        from stages.compress.folding import smooth

        for pair in layer.subgraph.pairs:
            if pair.source_kind in self.pairs:
                smooth(layer, pair, self.smoothing_strength)
