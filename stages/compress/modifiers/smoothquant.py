"""The modifier `smoothquant`: its options, and the transform it applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from stages.compress.modifiers.base import Transform
from stages.compress.pairs.pair_kinds import check_pairs, without_pairs

if TYPE_CHECKING:
    from stages.compress.layer.state import LayerState
    from stages.model.blueprint import Blueprint

AUTO = "auto"
STEPS = 20
"""Strengths that `auto` tries: 0, 1 / STEPS, ... 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SmoothQuant(Transform):
    """Divides the channels of a module's output by a factor that its readers multiply back.

    `pairs`: "norm" smooths what norms feed, as the paper does; "linear" also v_proj -> o_proj and
    up_proj -> down_proj.
    """

    kind: ClassVar[str] = "smoothquant"

    smoothing_strength: float | int | str = 0.5
    """The paper's alpha: 0 leaves activations as they are, 1 moves all of their spread; auto takes
    for each pair the one with the least output error of rounded weights and inputs."""
    pairs: list[str] = field(default_factory=lambda: ["norm"])

    def __post_init__(self) -> None:
        strength = self.smoothing_strength
        if strength != AUTO and (isinstance(strength, str) or not 0 <= strength <= 1):
            raise UserError(f"smoothing_strength is {strength!r}", remedy=f"give 0 to 1, or {AUTO}")
        if not isinstance(strength, str):
            object.__setattr__(self, "smoothing_strength", float(strength))  # 1 is 1.0 in a key
        check_pairs(self.pairs)

    @property
    def tries(self) -> int:
        return STEPS + 2 if self.smoothing_strength == AUTO else 0

    def statistics(self) -> frozenset[str]:
        return frozenset({"absmax", "gram"} if self.tries else {"absmax"})

    def input_statistics(self) -> frozenset[str]:
        return frozenset({"rows"} if self.tries else ())

    def idle(self, blueprint: Blueprint) -> str:
        return without_pairs(self.pairs, blueprint)

    def rewrite(self, layer: LayerState) -> None:
        from stages.compress.folding import smooth

        chosen = [pair for pair in layer.subgraph.pairs if pair.source_kind in self.pairs]
        if isinstance(self.smoothing_strength, str):
            from stages.compress.modifiers.observer import observe_by
            from stages.compress.pairs.strengths import smooth_best
            from stages.compute.row_tiles import shared_tile_pool

            with shared_tile_pool():
                for pair in chosen:
                    smooth_best(layer, pair, STEPS, observe_by("minmax"))
            return
        for pair in chosen:
            smooth(layer, pair, float(self.smoothing_strength))
