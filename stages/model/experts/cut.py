"""Parts of fused checkpoint tensors, such as the gate of one expert, described as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Rows `start:stop:step` of block `index` of a stored tensor's first dimension.

    A block is a matrix (of a 3-D tensor) or a vector (of a 2-D one). `transposed`: the matrix is
    stored as [in, out] and is turned before its rows are taken. `stop` None: to the end. `blocks`:
    the stored tensor is a matrix with so many blocks, one below the other.
    """

    stored: str
    index: int
    start: int = 0
    stop: int | None = None
    step: int = 1
    transposed: bool = False
    blocks: int = 0

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.start, self.stop, self.step)

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the part of a tensor of shape `stored`; UserError if it has no such part."""
        whole = stored
        if self.blocks and len(stored) == 2:
            stored = (self.blocks, stored[0] // self.blocks, stored[1])
        uneven = bool(self.blocks) and (len(whole) != 2 or whole[0] % self.blocks != 0)
        if uneven or len(stored) not in (2, 3) or self.index >= stored[0]:
            raise UserError(
                f"{self.stored} is {list(whole)}, which has no matrix or vector {self.index}",
                remedy="check that config.json and the weights belong together",
            )
        block = stored[:0:-1] if self.transposed else stored[1:]
        return (len(range(*self.rows.indices(block[0]))), *block[1:])

    def of(self, block: Tensor) -> Tensor:
        """The part as a tensor of its own; `block`: [out, in], [in, out] if transposed, or [n]."""
        if self.transposed and block.dim() == 2:
            block = block.T
        return block[self.rows].contiguous()

    def to_json(self) -> list[Any]:
        """Its fields in order, as JSON data."""
        fields = [self.stored, self.index, self.start, self.stop, self.step, self.transposed]
        return [*fields, self.blocks] if self.blocks else fields

    @classmethod
    def from_json(cls, data: list[Any]) -> Cut:
        """The cut in the output of `to_json`."""
        stored, index, start, stop, step, transposed, *blocks = data
        return cls(
            stored=stored,
            index=index,
            start=start,
            stop=stop,
            step=step,
            transposed=transposed,
            blocks=blocks[0] if blocks else 0,
        )
