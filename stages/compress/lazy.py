"""The tensors of a layer, read when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping

from torch import Tensor

from stages.model.tensors import Reader


class LazyTensors(MutableMapping[str, Tensor]):
    """Tensors by module-tree name; one that was read or set is kept until it is removed."""

    def __init__(self, names: Mapping[str, str], source: Reader) -> None:
        """`names`: module-tree name -> name in the checkpoint."""
        self._names = dict(names)
        self._source = source
        self._held: dict[str, Tensor] = {}

    def peek(self, name: str) -> Tensor:
        """A tensor, not kept if it was not there."""
        if name in self._held:
            return self._held[name]
        stored = self._names[name]
        return self._source.read([stored])[stored]

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._held:
            self._held[name] = self.peek(name)
        return self._held[name]

    def __setitem__(self, name: str, value: Tensor) -> None:
        self._names.setdefault(name, name)
        self._held[name] = value

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._held.pop(name, None)

    def __contains__(self, name: object) -> bool:
        return name in self._names  # the inherited one would read it

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
