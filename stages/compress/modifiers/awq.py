"""The modifier `awq`: its options, and the transform it applies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from pipeline.key import Json
from stages.compress.modifiers.base import Transform
from stages.compress.modifiers.observer import (
    check_observer,
    identity_of,
    needs_gram,
    observe_by,
)
from stages.compress.pairs.pair_kinds import check_pairs, without_pairs

if TYPE_CHECKING:
    from stages.compress.layer.state import LayerState
    from stages.model.blueprint import Blueprint

BOTH = "both"


@dataclass(frozen=True, kw_only=True, slots=True)
class Awq(Transform):
    """Scales up the columns that large inputs meet; the channels that feed them are divided.

    The factor of a channel is mean|x|^ratio, over mean|w|^(1 - ratio) with `duo_scaling`. For each
    pair the ratio is the one with the least output error of the rounded weights (and inputs, where
    the scheme quantizes them), reckoned from the Gram matrix: nothing is run again.
    """

    kind: ClassVar[str] = "awq"

    n_grid: int = 20
    """How many ratios are tried: 0, 1 / n_grid, ... below 1."""
    duo_scaling: bool | str = True
    """Whether weights play a part in the factors; both tries either."""
    observer: str = "minmax"
    """How scales are chosen while a ratio is tried; the solver has one of its own."""
    pairs: list[str] = field(default_factory=lambda: ["norm", "linear"])

    def __post_init__(self) -> None:
        if self.n_grid < 1:
            raise UserError(f"n_grid is {self.n_grid}", remedy="give 1 or more")
        if not isinstance(self.duo_scaling, bool) and self.duo_scaling != BOTH:
            raise UserError(
                f"duo_scaling is {self.duo_scaling!r}", remedy=f"choose one of true, false, {BOTH}"
            )
        if self.n_grid == 1 and self.duo_scaling is False:
            raise UserError(
                "n_grid is 1 and duo_scaling false: the only ratio is 0, which changes nothing",
                remedy="give n_grid 2 or more",
            )
        check_observer(self.observer)
        check_pairs(self.pairs)

    @property
    def tries(self) -> int:
        return 1 + self.n_grid * (2 if self.duo_scaling == BOTH else 1)

    def statistics(self) -> frozenset[str]:
        return frozenset({"gram", "absmean"})

    def input_statistics(self) -> frozenset[str]:
        return frozenset({"rows"})

    def semantics(self) -> list[Json]:
        return [*super(Awq, self).semantics(), *identity_of(self.observer)]

    def idle(self, blueprint: Blueprint) -> str:
        return without_pairs(self.pairs, blueprint)

    def rewrite(self, layer: LayerState) -> None:
        from stages.compress.pairs.awq import apply_awq
        from stages.compress.pairs.search import Rounder
        from stages.compute.row_tiles import shared_tile_pool

        rounder = Rounder(observe=observe_by(self.observer), importance=needs_gram(self.observer))
        duo = (True, False) if isinstance(self.duo_scaling, str) else (self.duo_scaling,)
        with shared_tile_pool():
            for pair in layer.subgraph.pairs:
                if pair.source_kind in self.pairs:
                    apply_awq(layer, pair, n_grid=self.n_grid, duo=duo, rounder=rounder)
