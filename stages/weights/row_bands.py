"""A matrix of a checkpoint, read as a whole or, where it is large, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from stages.weights.safetensors_file import Scratch
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WIDE = 1 << 28
"""Matrices of more bytes than this are never in memory as a whole."""
BAND = 1 << 26
"""About so many bytes of them are."""


def streaming_bytes(largest: int) -> int:
    """Memory of a process that reads matrices of at most `largest` bytes and writes their codes."""
    return 400_000_000 + 2 * min(largest, WIDE)


class Matrix(Protocol):
    """Rows of a tensor of two dimensions."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def bands(self, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """(first row, the row after the last) of parts, all of them a multiple of rows but one."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Some rows, good until the next are read."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """A tensor that is there."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        return self.tensor.shape[0], self.tensor.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def bands(self, multiple: int = 1) -> Iterator[tuple[int, int]]:
        del multiple
        yield 0, self.shape[0]

    def read(self, start: int, stop: int) -> Tensor:
        return self.tensor[start:stop]


@dataclass(frozen=True, slots=True)
class InFile:
    """A tensor of a checkpoint, read into memory that is used again."""

    source: SafetensorsSource
    spec: TensorSpec
    scratch: Scratch = field(default_factory=Scratch)

    @property
    def shape(self) -> tuple[int, int]:
        return self.spec.shape[0], self.spec.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        from stages.weights.dtypes import torch_dtype

        return torch_dtype(self.spec.dtype)

    def bands(self, multiple: int = 1) -> Iterator[tuple[int, int]]:
        rows, step = self.shape[0], self.shape[0]
        if self.spec.bytes > WIDE:
            count = BAND * rows // self.spec.bytes
            step = max(1, count // multiple) * multiple
        for start in range(0, rows, max(1, step)):
            yield start, min(rows, start + step)

    def read(self, start: int, stop: int) -> Tensor:
        return self.source.borrow(self.spec.name, self.scratch, rows=(start, stop))


def matrix_of(source: WeightSource, spec: TensorSpec, scratch: Scratch) -> Matrix:
    """A tensor of two dimensions of `source`; of plain files, it is read into `scratch`."""
    if isinstance(source, SafetensorsSource):
        return InFile(source, spec, scratch)
    return InMemory(source.read([spec.name])[spec.name])
