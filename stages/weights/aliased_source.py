"""A source in which some tensors also go by other names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import pieces

if TYPE_CHECKING:
    from torch import Tensor


class Aliased:
    """`source`, where the names in `aliases` stand for other tensors of it (a `WeightSource`).

    An alias hides a tensor of that name.
    """

    def __init__(self, source: WeightSource, aliases: Mapping[str, str]) -> None:
        self._source = source
        self._aliases = aliases

    def specs(self) -> Mapping[str, TensorSpec]:
        specs = dict(self._source.specs())
        more = {new: replace(specs[old], name=new) for new, old in self._aliases.items()}
        return specs | more

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order, each piece good until the next one is asked for."""
        return pieces(self._source, self._aliases.get(name, name))

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        wanted = list(names)
        real = [self._aliases.get(name, name) for name in wanted]
        read = self._source.read(dict.fromkeys(real), device=device)
        return {name: read[own] for name, own in zip(wanted, real, strict=True)}
