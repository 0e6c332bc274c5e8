"""Weight source in which tensors that a model has as one, and the disk in pieces, are one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from stages.weights.source import TensorSpec, WeightSource
from stages.weights.writer import bytes_of, pieces

if TYPE_CHECKING:
    from torch import Tensor


class JoinedSource:
    """A `WeightSource` over `source` in which `joins` maps further names to tensors in a row.

    The tensors are concatenated along their first dimension. They keep their own names too: a
    checkpoint made from this source has those.
    """

    def __init__(self, source: WeightSource, joins: Mapping[str, tuple[str, ...]]) -> None:
        self.source = source
        self._joins = joins

    def specs(self) -> Mapping[str, TensorSpec]:
        specs = dict(self.source.specs())
        for name, parts in self._joins.items():
            shapes = [specs[part].shape for part in parts]
            shape = (sum(shape[0] for shape in shapes), *shapes[0][1:])
            specs[name] = replace(specs[parts[0]], name=name, shape=shape)
        return specs

    def pieces(self, name: str) -> Iterator[memoryview]:
        """The bytes of a tensor in order; each piece is valid until the next one is requested."""
        if name not in self._joins:
            yield from pieces(self.source, name)
            return
        yield bytes_of(self.read([name])[name])

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        import torch

        wanted = list(names)
        parts = {name: self._joins.get(name, (name,)) for name in wanted}
        plain = dict.fromkeys(part for group in parts.values() for part in group)
        found = self.source.read(plain, device=device)
        return {
            name: torch.cat([found[part] for part in group]) if len(group) > 1 else found[group[0]]
            for name, group in parts.items()
        }
