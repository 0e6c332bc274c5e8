"""The modifier `gptaq`: GPTQ aimed at the original model's outputs, and its options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from pipeline.errors import UserError
from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.gptq import Gptq


@dataclass(frozen=True, kw_only=True, slots=True)
class Gptaq(Gptq):
    """Solve a layer's Linears in order by GPTQ, each aimed at what the original model has there.

    After GPTAQ (arXiv:2504.02692); see `stages.compress.aimed.target_weight` for the difference.
    The options of `gptq` are those of the solver.
    """

    kind: ClassVar[str] = "gptaq"

    strength: float = 0.5
    """Part of the best correction of the weight that GPTQ is aimed at; 0: the weight itself."""
    damping: float = 0.05
    """What is added to the diagonal of H for the correction, as a part of its mean."""

    def __post_init__(self) -> None:
        super(Gptaq, self).__post_init__()
        if not 0 <= self.strength <= 1:
            raise UserError(
                f"strength is {self.strength}",
                remedy="give 0 or more, at most 1: a part of the best correction",
            )
        if not 0 < self.damping < 1:
            raise UserError(f"damping is {self.damping}", remedy="give more than 0, less than 1")

    @property
    def aims(self) -> bool:
        return True

    def aimed(self) -> Gptaq:
        """Itself; one that learns from there on says which it starts from."""
        return self

    def outside(self) -> Solver:
        """What solves each weight by itself."""
        return Gptq(**{option.name: getattr(self, option.name) for option in fields(Gptq)})
