"""Round to nearest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.base import GRAM_OBSERVERS, OBSERVERS, Problem, Solver, one_of

if TYPE_CHECKING:
    from stages.compress.grid import Quantized


@dataclass(frozen=True, kw_only=True, slots=True)
class Rtn(Solver):
    """Every weight goes to its nearest code; `observer` chooses the scales."""

    kind: ClassVar[str] = "rtn"

    observer: str = "minmax"
    on_failure: str = "error"

    def __post_init__(self) -> None:
        one_of("observer", self.observer, OBSERVERS)
        one_of("on_failure", self.on_failure, ("error", "skip"))

    def statistics(self) -> frozenset[str]:
        return frozenset({"gram"} if self.observer in GRAM_OBSERVERS else ())

    def solve(self, problem: Problem) -> Quantized:
        from stages.compress.observers.catalog import OBSERVERS as CATALOG
        from stages.compress.solvers.rtn import rtn

        qparams = CATALOG[self.observer](
            problem.weight,
            problem.args,
            importance=None if problem.H is None else problem.H.diagonal(),
            global_scale=problem.global_scale,
            dtype=problem.dtype,
        )
        return rtn(problem.weight, problem.args, qparams)
