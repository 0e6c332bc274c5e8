"""The modifier `sparsegpt`: its options, and the pruning it calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.gptq import check_columns
from stages.compress.modifiers.sparsity import Sparsity

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseGpt(Sparsity):
    """Prunes column by column, later columns making up for what is lost, before a solver."""

    kind: ClassVar[str] = "sparsegpt"

    block_size: int = 128
    """Columns whose mask is chosen at once."""
    dampening_frac: float = 0.01
    """What is added to the diagonal of H, as a part of its mean."""

    def __post_init__(self) -> None:
        super(SparseGpt, self).__post_init__()
        check_columns(self.block_size, self.dampening_frac)

    def statistics(self) -> frozenset[str]:
        return frozenset({"gram"})

    def prune(self, weight: Tensor, H: Tensor | None) -> Tensor:
        from stages.compress.pruning.sparsegpt import sparsegpt

        if H is None:
            raise ValueError("sparsegpt needs a Gram matrix")
        return sparsegpt(
            weight,
            H,
            sparsity=self.share,
            structure=self.structure,
            block_size=self.block_size,
            dampening_frac=self.dampening_frac,
        )
