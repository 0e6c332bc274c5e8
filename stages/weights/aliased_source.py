"""Weight source that gives some tensors additional names, such as an untied lm_head."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import copied, pieces

if TYPE_CHECKING:
    from torch import Tensor


class Aliased:
    """A `WeightSource` over `source` in which `aliases` maps further names to its tensors.

    An alias hides a tensor of the same name.
    """

    def __init__(self, source: WeightSource, aliases: Mapping[str, str]) -> None:
        self._source = source
        self._aliases = aliases

    def specs(self) -> Mapping[str, TensorSpec]:
        specs = dict(self._source.specs())
        aliased = {new: replace(specs[old], name=new) for new, old in self._aliases.items()}
        return specs | aliased

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        return pieces(self._source, self._aliases.get(name, name))

    def copy_into(self, name: str, target: int, start: int) -> int:
        """Copy a tensor's bytes to position `start` of an open file; the position after them."""
        return copied(self._source, self._aliases.get(name, name), target, start)

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        stored = {name: self._aliases.get(name, name) for name in names}
        tensors = self._source.read(dict.fromkeys(stored.values()), device=device)
        return {name: tensors[original] for name, original in stored.items()}
