"""The modifier `log_equalization`: its options, and the transform it applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.base import Transform
from stages.compress.pairs.pair_kinds import check_pairs, without_pairs

if TYPE_CHECKING:
    from stages.compress.layer.state import LayerState
    from stages.model.blueprint import Blueprint


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEqualization(Transform):
    """Divides the channels of a module's output until outliers are as large as their logarithms.

    Its readers multiply the factor back, as with `smoothquant`; weights play no part in it.
    """

    kind: ClassVar[str] = "log_equalization"

    pairs: list[str] = field(default_factory=lambda: ["norm"])

    def __post_init__(self) -> None:
        check_pairs(self.pairs)

    def statistics(self) -> frozenset[str]:
        return frozenset({"absmax"})

    def idle(self, blueprint: Blueprint) -> str:
        return without_pairs(self.pairs, blueprint)

    def rewrite(self, layer: LayerState) -> None:
        from stages.compress.folding import equalize

        for pair in layer.subgraph.pairs:
            if pair.source_kind in self.pairs:
                equalize(layer, pair)
