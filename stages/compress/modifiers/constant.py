"""The modifier `constant`: entries that are zero stay zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from stages.compress.modifiers.base import Pruner

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Constant(Pruner):
    """Keeps the zeros of a model that was pruned before; prunes nothing itself."""

    kind: ClassVar[str] = "constant"

    def prune(self, weight: Tensor, H: Tensor | None) -> Tensor:
        del H
        return weight
