"""The solver `best_of`: several observers are tried, and the nearest weight is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from stages.compress.modifiers.base import Problem, Solver
from stages.compress.modifiers.observer import check_observer, needs_gram

if TYPE_CHECKING:
    from stages.compress.grid import Quantized


@dataclass(frozen=True, kw_only=True, slots=True)
class BestOf(Solver):
    kind: ClassVar[str] = "best_of"
    version: ClassVar[int] = 1

    observers: list[str] = field(default_factory=lambda: ["minmax", "mse"])
    """Which ones are tried: those that need no data."""
    on_failure: str = "error"
    """What numerical trouble leads to; this solver has none."""

    def __post_init__(self) -> None:
        if not self.observers:
            raise UserError("observers is empty", remedy="name at least one, such as mse")
        for name in self.observers:
            check_observer(name)
            if needs_gram(name):
                raise UserError(f"observers has {name}", remedy="take minmax or mse")

    def solve(self, problem: Problem) -> Quantized:
        from stages.compress.modifiers.observer import observe_by
        from stages.compress.solvers.rtn import rtn

        weight, grid, shared = problem.weight, problem.grid, problem.global_scale
        tried = [
            rtn(weight, grid, observe_by(name)(weight, grid, importance=None, global_scale=shared))
            for name in self.observers
        ]
        exact = weight.float()
        return min(tried, key=lambda found: float((found.weight - exact).square().sum()))
