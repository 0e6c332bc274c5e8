"""The modifier `wanda`: prune by |W| times the norm of the input channel (arXiv:2306.11695)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.sparsity import Sparsity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanda(Sparsity):
    """Keeps the entries of every row whose inputs make them count most; the others are zero."""

    kind: ClassVar[str] = "wanda"

    def statistics(self) -> frozenset[str]:
        return frozenset({"gram"})

    def prune(self, weight: Tensor, H: Tensor | None) -> Tensor:
        from stages.compress.pruning.masks import keep_largest, wanda_scores

        if H is None:
            raise ValueError("wanda needs a Gram matrix")
        return keep_largest(
            weight, wanda_scores(weight, H), self.share, self.structure, by_row=True
        )
