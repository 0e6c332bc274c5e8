"""The modifier `magnitude`: prune the smallest entries of every weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.sparsity import Sparsity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Magnitude(Sparsity):
    """Keeps the largest entries of every weight; needs no calibration."""

    kind: ClassVar[str] = "magnitude"

    def prune(self, weight: Tensor, H: Tensor | None) -> Tensor:
        from stages.compress.pruning.masks import keep_largest

        del H
        return keep_largest(weight, weight.float().abs(), self.share, self.structure, by_row=False)
