"""Options that pruning modifiers share: how much becomes zero, and in which pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from stages.compress.modifiers.base import Pruner

if TYPE_CHECKING:
    from stages.compress.pruning.masks import Structure

DEFAULT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Sparsity(Pruner):
    """A share of zeros, or a pattern that implies it."""

    sparsity: float | None = None
    """The share of zeros, between 0 and 1; None: what the pattern says, and 0.5 without one."""
    mask_structure: str = "0:0"
    """zeros:of, such as 2:4; 0:0 for no pattern."""

    def __post_init__(self) -> None:
        zeros, of = self._pattern()
        if self.sparsity is None:
            return
        if not 0 < self.sparsity < 1:
            raise UserError(
                f"sparsity is {self.sparsity}", remedy="give more than 0 and less than 1"
            )
        if of and abs(self.sparsity - zeros / of) > 1e-6:
            raise UserError(
                f"sparsity is {self.sparsity}, but mask_structure {self.mask_structure} makes it "
                f"{zeros / of:g}",
                remedy="give one of them",
            )

    def _pattern(self) -> tuple[int, int]:
        parts = self.mask_structure.split(":")
        if len(parts) == 2 and all(part.isdecimal() for part in parts):
            zeros, of = int(parts[0]), int(parts[1])
            if zeros == of == 0 or 0 < zeros < of <= 256:
                return zeros, of
        raise UserError(
            f"mask_structure is {self.mask_structure!r}",
            remedy="give 0:0 for no pattern, or zeros:of, such as 2:4 for 2 zeros in every 4",
        )

    @property
    def share(self) -> float:
        """The share of zeros where there is no pattern."""
        return DEFAULT if self.sparsity is None else self.sparsity

    @property
    def structure(self) -> Structure:
        from stages.compress.pruning.masks import Structure

        zeros, of = self._pattern()
        return Structure(zeros=zeros, of=of)
