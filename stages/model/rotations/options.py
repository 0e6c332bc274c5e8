"""Options of a rotation that a modifier asks for, as the stages that rotate read them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import UserError
from stages.compute.hadamard import nearest_block, orders
from stages.compute.rotation import HADAMARD, RANDOM, TYPES, RotationSpec

R1, R2 = "R1", "R2"
ONLINE = ("R3", "R4")
"""Rotations that run with the model: none of the loaders of a checkpoint applies them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RotationOptions:
    """Which rotations, and of what kind.

    `rotations`: R1 of the residual stream, R2 of the values of each head. `type`: see
    `stages.compute.rotation`. `block`: channels that R1 mixes; None: all of them.
    """

    rotations: tuple[str, ...]
    type: str
    block: int | None
    seed: int

    def asked(self) -> dict[str, Any]:
        """The options as JSON data: what a rotated model remembers of them."""
        return {**asdict(self), "rotations": list(self.rotations)}

    def spec(self, which: str, size: int, layer: int = 0, *, keeps_mean: bool) -> RotationSpec:
        """The matrix of R1, or of R2 in the decoder layer number `layer`; [size, size]."""
        block = self.block if which == R1 and self.block is not None else size
        number = 0 if which == R1 else 1 + layer
        return RotationSpec(
            size=size,
            block=block,
            type=self.type,
            seed=0 if self.type == HADAMARD else self.seed * 100_003 + number,
            keeps_mean=keeps_mean,
        )

    def problem(self, which: str, size: int) -> UserError | None:
        """Why there is no such matrix [size, size]; None where there is one."""
        block = self.block if which == R1 else None
        if block is not None and size % block:
            return UserError(
                f"block_size is {block}, and {which} turns {size} channels",
                remedy=f"give a divisor of {size}, such as {nearest_block(size)}",
            )
        order = size if block is None else block
        if self.type == RANDOM or orders(order) is not None:
            return None
        blocks = f"block_size={nearest_block(size)}" if which == R1 else f"rotations=[{R1}]"
        return UserError(
            f"{which} turns {order} channels, and no Hadamard matrix of that order is known here",
            remedy=f"say transform_type={RANDOM}, or {blocks}",
        )


def check_type(name: str) -> None:
    """Raise UserError unless `name` is a type of matrix."""
    if name not in TYPES:
        raise UserError(f"transform_type is {name!r}", remedy=f"choose one of {', '.join(TYPES)}")
