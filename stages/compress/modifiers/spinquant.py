"""The modifier `spinquant`: which rotations of the model, and of what kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors import UserError
from stages.compress.modifiers.base import Rotation
from stages.compute.rotation import HADAMARD, RANDOM, SIGNED
from stages.model.rotations.options import ONLINE, R1, R2, RotationOptions, check_type


@dataclass(frozen=True, kw_only=True, slots=True)
class SpinQuant(Rotation):
    """Turns channels of the model before anything is calibrated, so that none of them stands out.

    `rotations`: R1 turns the residual stream, R2 the values of every attention head; both are
    folded into weights. arXiv:2405.16406; with `random-hadamard`, what arXiv:2404.00456 calls
    QuaRot does offline.
    """

    kind: ClassVar[str] = "spinquant"

    rotations: list[str] = field(default_factory=lambda: [R1, R2])
    transform_type: str = SIGNED
    """hadamard; random-hadamard, with random signs; random-matrix, orthogonal."""
    block_size: int | None = None
    """Channels that R1 mixes with each other; null: all of them."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_type(self.transform_type)
        online = [name for name in self.rotations if name in ONLINE]
        if online:
            raise UserError(
                f"{online[0]} is computed while the model runs, and no loader of checkpoints here "
                "does that: transformers leaves transform_config out without a word",
                remedy=f"say rotations=[{R1}, {R2}], which are folded into weights",
            )
        strange = [name for name in self.rotations if name not in (R1, R2)]
        if strange or not self.rotations or len(set(self.rotations)) < len(self.rotations):
            raise UserError(
                f"rotations is {self.rotations}", remedy=f"give {R1}, {R2} or both, each once"
            )
        if self.block_size is not None and self.block_size < 2:
            raise UserError(f"block_size is {self.block_size}", remedy="give 2 or more, or null")
        if self.block_size is not None and R1 not in self.rotations:
            raise UserError(
                "block_size is given, and R2 alone has no blocks", remedy="say block_size=null"
            )
        if self.transform_type == HADAMARD and self.seed:
            raise UserError(
                f"seed is {self.seed}, and transform_type={HADAMARD} draws nothing",
                remedy=f"say transform_type={SIGNED} or {RANDOM}, or leave seed out",
            )

    @property
    def rotation(self) -> RotationOptions:
        return RotationOptions(
            rotations=tuple(sorted(self.rotations)),
            type=self.transform_type,
            block=self.block_size,
            seed=self.seed,
        )
