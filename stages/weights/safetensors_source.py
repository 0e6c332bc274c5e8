"""Weight source over a safetensors checkpoint, in one file or in shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from stages.weights.checkpoint_files import Layout, find_weights, read_headers
from stages.weights.safetensors_file import (
    Header,
    Scratch,
    copy_into,
    read_into,
    read_pieces,
    read_tensors,
    will_need,
)
from stages.weights.source import TensorSpec, WeightSource, no_such_tensor

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 20
"""Bytes of a piece: the allocator reuses blocks of this size, larger ones it maps afresh."""


def open_checkpoint(folder: Path) -> WeightSource:
    """The weights of a folder of safetensors files, a single one or shards with an index.

    Raises UserError or ManyErrors for missing files and for an index that is not to be trusted.
    """
    return SafetensorsSource(find_weights(folder))


class SafetensorsSource:
    """A `WeightSource` over one safetensors file or shards.

    Headers are parsed once, and only those of shards that are read from.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._headers: dict[str, Header] = {}

    @classmethod
    def of_file(cls, path: Path) -> SafetensorsSource:
        """The source of all tensors of one file."""
        return cls(Layout(where=str(path), files={path.name: path}, tensors=None))

    def specs(self) -> Mapping[str, TensorSpec]:
        if len(self._headers) < len(self.layout.files):
            self._headers = read_headers(self.layout)
        if self.layout.tensors is None:
            headers = self._headers.values()
            return {name: place.spec for h in headers for name, place in h.places.items()}
        return {
            name: self._headers[file].places[name].spec
            for name, file in self.layout.tensors.items()
        }

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        by_file: dict[str, list[str]] = {}
        wanted = list(names)
        for name in wanted:
            by_file.setdefault(self._file_of(name), []).append(name)
        found: dict[str, Tensor] = {}
        for file, here in by_file.items():
            header = self._header(file)
            for name in here:
                if name not in header.places:
                    raise no_such_tensor(name, header.places, str(header.path))
            found.update(read_tensors(header, here, device=device))
        return {name: found[name] for name in wanted}

    def borrow(self, name: str, scratch: Scratch, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or its `rows` (start, stop), read into `scratch`."""
        return read_into(self._place(name), name, scratch, rows)

    def read_block(self, name: str, index: int) -> Tensor:
        """Copy of block `index` of a tensor's first dimension, of which nothing else is read."""
        if index not in range(self.spec(name).shape[0]):
            raise IndexError(f"{name} has no block {index}")
        return self.borrow(name, Scratch(), rows=(index, index + 1))[0]

    def will_need(self, names: Iterable[str]) -> int:
        """Ask the system to read tensors from the disk, ahead of `read`; gives their bytes."""
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self._file_of(name), []).append(name)
        return sum(will_need(self._header(file), here) for file, here in by_file.items())

    def spec(self, name: str) -> TensorSpec:
        """The spec of one tensor; only the header of its own file is read."""
        return self._place(name).places[name].spec

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        return read_pieces(self._place(name), name, PIECE)

    def copy_into(self, name: str, target: int, start: int) -> int:
        """Copy a tensor's bytes to position `start` of an open file; the position after them."""
        return copy_into(self._place(name), name, target, start, PIECE)

    def _place(self, name: str) -> Header:
        """The header of the file that holds the tensor."""
        header = self._header(self._file_of(name))
        if name not in header.places:
            raise no_such_tensor(name, header.places, str(header.path))
        return header

    def _file_of(self, name: str) -> str:
        if self.layout.tensors is None:
            return next(iter(self.layout.files))
        if name not in self.layout.tensors:
            raise no_such_tensor(name, self.layout.tensors, self.layout.where)
        return self.layout.tensors[name]

    def _header(self, file: str) -> Header:
        if file not in self._headers:
            self._headers[file] = self.layout.header(file)
        return self._headers[file]
