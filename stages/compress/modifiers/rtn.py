"""The modifier `rtn`: round to nearest (RTN) under the scales of an observer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pipeline.key import WHEN_SET, Json
from stages.compress.modifiers.base import Problem, Solver, one_of
from stages.compress.modifiers.observer import (
    check_observer,
    check_signs,
    identity_of,
    needs_gram,
    observe_by,
)

if TYPE_CHECKING:
    from stages.compress.grid import Quantized


@dataclass(frozen=True, kw_only=True, slots=True)
class Rtn(Solver):
    """Every weight goes to its nearest code; `observer` chooses the scales."""

    kind: ClassVar[str] = "rtn"

    observer: str = "minmax"
    on_failure: str = "error"
    """What numerical trouble leads to: an error, or the module left dense."""
    negative_scales: bool = field(default=False, metadata={"key": WHEN_SET})
    """Also try negative scales, for symmetric integers: their extra code then fits either sign."""

    def __post_init__(self) -> None:
        check_observer(self.observer)
        check_signs(self.kind, self.observer, self.negative_scales)
        one_of("on_failure", self.on_failure, ("error", "skip"))

    def statistics(self) -> frozenset[str]:
        return frozenset({"gram"} if needs_gram(self.observer) else ())

    def semantics(self) -> list[Json]:
        return [*super(Rtn, self).semantics(), *identity_of(self.observer)]

    def solve(self, problem: Problem) -> Quantized:
        from stages.compress.solvers.rtn import rtn

        weight = problem.weight if problem.pruned is None else problem.pruned
        grid = problem.grid.signed() if self.negative_scales else problem.grid
        qparams = observe_by(self.observer)(
            weight,
            grid,
            importance=None if problem.H is None else problem.H.diagonal(),
            global_scale=problem.global_scale,
        )
        return rtn(weight, grid, qparams)
