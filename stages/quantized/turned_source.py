"""Weight source in which matrices that the disk has as [in, out] read as [out, in], or back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import bytes_of, pieces

if TYPE_CHECKING:
    from torch import Tensor


class TurnedSource:
    """A `WeightSource` over `source` in which the matrices `turned` are transposed."""

    def __init__(self, source: WeightSource, turned: Collection[str]) -> None:
        self.source = source
        self._turned = frozenset(turned)

    def specs(self) -> Mapping[str, TensorSpec]:
        return {
            name: replace(spec, shape=spec.shape[::-1]) if name in self._turned else spec
            for name, spec in self.source.specs().items()
        }

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        if name not in self._turned:
            yield from pieces(self.source, name)
            return
        yield bytes_of(self.read([name])[name])

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        found = self.source.read(list(names), device=device)
        return {
            name: tensor.T.contiguous() if name in self._turned else tensor
            for name, tensor in found.items()
        }
