"""The modifier `rtn`: round to nearest (RTN) under the scales of an observer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from pipeline.key import WHEN_SET, Json
from stages.compress.modifiers.base import Problem, Solver, one_of
from stages.compress.modifiers.observer import (
    PerTarget,
    check_entries,
    entry_for,
    identities,
    needs_gram,
    observe_by,
    observers_of,
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
    per_target: list[PerTarget] | None = field(default=None, metadata={"key": WHEN_SET})
    """Other options for some modules; null: none."""

    def __post_init__(self) -> None:
        check_entries(
            self.kind, self.observer, self.per_target, negative_scales=self.negative_scales
        )
        one_of("on_failure", self.on_failure, ("error", "skip"))
        if any(entry.actorder is not None for entry in self.per_target or ()):
            raise UserError(
                "per_target has an actorder, and rounding has no order of columns",
                remedy="leave it out, or say modifier=gptq",
            )

    def statistics(self) -> frozenset[str]:
        named = observers_of(self.observer, self.per_target)
        return frozenset({"gram"} if any(map(needs_gram, named)) else ())

    def semantics(self) -> list[Json]:
        return [*super(Rtn, self).semantics(), *identities(self.observer, self.per_target)]

    def of(self, module: str) -> Solver:
        if not self.per_target:
            return self
        found = entry_for(module, self.per_target)
        observer = found.observer if found and found.observer else self.observer
        return replace(self, observer=observer, per_target=None)

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
