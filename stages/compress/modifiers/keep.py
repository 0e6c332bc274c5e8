"""The modifier `keep`: take over codes and scales of a source that is quantized already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.base import POLICIES, Problem, Solver, one_of

if TYPE_CHECKING:
    from stages.compress.grid import Quantized


@dataclass(frozen=True, kw_only=True, slots=True)
class Keep(Solver):
    """Takes over the codes and scales of a model that is quantized already, without loss.

    The scheme must have the grid of the source. `round_scales`: round scales that the model's
    dtype cannot hold exactly, where the format stores them in it; else they are an error.
    `on_failure`: error, fallback (round the dense weight) or skip, where something does not fit.
    """

    kind: ClassVar[str] = "keep"
    keeps: ClassVar[bool] = True

    round_scales: bool = False
    on_failure: str = "error"

    def __post_init__(self) -> None:
        one_of("on_failure", self.on_failure, POLICIES)

    def solve(self, problem: Problem) -> Quantized:
        from stages.compress.modifiers.keep_source import kept

        return kept(problem.stored, problem.grid, round_scales=self.round_scales)
