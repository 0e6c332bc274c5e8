"""Read a matrix of a checkpoint in bands of rows where it is large, else as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from stages.weights.cut_source import CutSource
from stages.weights.safetensors_file import Scratch
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WIDE = 1 << 28
"""Matrices of more bytes than this are never in memory as a whole."""
BAND = 1 << 26
"""Approximate bytes of a band."""


def streaming_bytes(largest: int) -> int:
    """Peak memory of a process that quantizes matrices of at most `largest` bytes in bands."""
    return 400_000_000 + 2 * min(largest, WIDE)


class Matrix(Protocol):
    """A two-dimensional tensor that is read in bands of rows."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def bands(self, multiple: int = 1) -> Iterator[tuple[int, int]]:
        """(start, stop) of every band; all but the last have a multiple of `multiple` rows."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop`; valid until the next are read."""
        ...


@dataclass(frozen=True, slots=True)
class InMemory:
    """A matrix that is in memory already; its only band is the whole."""

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


class Files(Protocol):
    """Tensors in safetensors files: a `SafetensorsSource`, or a `CutSource` over one."""

    def spec(self, name: str) -> TensorSpec:
        """The spec of one tensor."""
        ...

    def borrow(self, name: str, scratch: Scratch, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or its `rows` (start, stop), read into `scratch`."""
        ...


def files_of(source: object) -> Files | None:
    """The source itself if it reads plain safetensors files; None for others."""
    if isinstance(source, SafetensorsSource):
        return source
    return source if isinstance(source, CutSource) and source.of_files else None


@dataclass(frozen=True, slots=True)
class InFile:
    """A matrix in a safetensors checkpoint, read into a buffer that is reused."""

    source: Files
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
    """A matrix of `source`; from safetensors files it is read band by band into `scratch`."""
    files = files_of(source)
    if files is not None:
        return InFile(files, spec, scratch)
    return InMemory(source.read([spec.name])[spec.name])
