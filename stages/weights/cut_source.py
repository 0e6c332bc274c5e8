"""Weight source in which parts of fused tensors, such as one expert's gate, are tensors too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from stages.weights.safetensors_file import Scratch
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import bytes_of, pieces

if TYPE_CHECKING:
    from torch import Tensor


class Part(Protocol):
    """Part of block `index` of the tensor `stored`, such as `stages.model.experts.cut.Cut`.

    Blocks are the first dimension, or so many (`blocks`, if it is not 0) matrices one below the
    other.
    """

    @property
    def stored(self) -> str: ...

    @property
    def index(self) -> int: ...

    @property
    def blocks(self) -> int: ...

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the part of a tensor of shape `stored`."""
        ...

    def of(self, block: Tensor) -> Tensor:
        """The part as a tensor of its own."""
        ...


class CutSource:
    """A `WeightSource` over `source` in which `cuts` maps further names to parts of its tensors.

    One block (one expert) of a fused tensor is in memory at a time, where the source below can read
    blocks. The fused tensors keep their names: a checkpoint made from this source leaves them out.
    """

    def __init__(self, source: WeightSource, cuts: Mapping[str, Part]) -> None:
        self.source = source
        self._cuts = cuts

    def specs(self) -> Mapping[str, TensorSpec]:
        specs = dict(self.source.specs())
        for name, cut in self._cuts.items():
            stored = specs[cut.stored]
            specs[name] = replace(stored, name=name, shape=cut.shape(stored.shape))
        return specs

    def part(self, name: str) -> Part | None:
        """The part of a fused tensor that `name` stands for; None for a tensor of its own."""
        return self._cuts.get(name)

    @property
    def of_files(self) -> bool:
        """Whether it lies over plain safetensors files, so that `spec` and `borrow` work."""
        return isinstance(self.source, SafetensorsSource)

    def spec(self, name: str) -> TensorSpec:
        """The spec of one tensor; only the header of its own file is read."""
        if name not in self._cuts:
            return self._files().spec(name)
        cut = self._cuts[name]
        stored = self._files().spec(cut.stored)
        return replace(stored, name=name, shape=cut.shape(stored.shape))

    def borrow(self, name: str, scratch: Scratch, rows: tuple[int, int] | None = None) -> Tensor:
        """A tensor, or its `rows` (start, stop); its block is read into `scratch`."""
        if name not in self._cuts:
            return self._files().borrow(name, scratch, rows)
        cut = self._cuts[name]
        files = self._files()
        span = (cut.index, cut.index + 1)
        if cut.blocks:
            span = rows_of_block(files.spec(cut.stored), cut.index, cut.blocks)
        block = files.borrow(cut.stored, scratch, span)
        part = cut.of(block if cut.blocks else block[0])
        return part if rows is None else part[rows[0] : rows[1]]

    def _files(self) -> SafetensorsSource:
        if not isinstance(self.source, SafetensorsSource):
            raise TypeError(f"{type(self.source).__name__} is no source of plain files")
        return self.source

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        if name not in self._cuts:
            yield from pieces(self.source, name)
            return
        yield bytes_of(self.read([name])[name])

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        wanted = list(names)
        plain = [name for name in wanted if name not in self._cuts]
        found = self.source.read(plain, device=device) if plain else {}
        held: tuple[str, int] | None = None
        block: Tensor | None = None
        for name in wanted:
            cut = self._cuts.get(name)
            if cut is None:
                continue
            if block is None or held != (cut.stored, cut.index):
                # gate and up of one expert follow each other: their block is read once
                block, held = None, (cut.stored, cut.index)
                block = read_block(self.source, cut.stored, cut.index, cut.blocks)
            found[name] = cut.of(block).to(device)
        return {name: found[name] for name in wanted}


def rows_of_block(spec: TensorSpec, index: int, blocks: int) -> tuple[int, int]:
    """(start, stop) of the rows of one of `blocks` matrices that lie one below the other."""
    rows = spec.shape[0] // blocks
    return index * rows, (index + 1) * rows


def read_block(source: WeightSource, name: str, index: int, blocks: int = 0) -> Tensor:
    """Block `index` of a tensor (see `Part`); the rest of it is not read where that works."""
    if blocks:
        if isinstance(source, SafetensorsSource):
            rows = rows_of_block(source.spec(name), index, blocks)
            return source.borrow(name, Scratch(), rows=rows)
        whole = source.read([name])[name]
        return whole.view(blocks, -1, whole.shape[1])[index]
    reader = getattr(source, "read_block", None)
    block: Tensor = reader(name, index) if reader is not None else source.read([name])[name][index]
    return block
