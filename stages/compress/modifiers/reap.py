"""The modifier `reap`: routed experts that add least are left out before all else (2510.13999)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stages.compress.modifiers.base import ExpertPruner
from stages.model.structure.expert_share import check_share


@dataclass(frozen=True, kw_only=True, slots=True)
class Reap(ExpertPruner):
    """Leaves out the experts with the least mean of gate times norm of their output.

    conf/modifier/reap.yaml adds the nodes that do it: what is calibrated and compressed after it is
    the model with the experts that are left.
    """

    kind: ClassVar[str] = "reap"

    sparsity: float = 0.25
    """The share of every layer's experts that goes; of each group of a router as many."""

    def __post_init__(self) -> None:
        check_share(self.sparsity)
