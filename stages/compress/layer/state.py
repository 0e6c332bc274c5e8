"""One decoder layer while it is compressed: tensors read on demand, what was changed so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stages.compress.layer.statistics import Statistics
from stages.model.blueprint import Subgraph
from stages.model.layer_tensors import Reader
from stages.schemes.resolve import Resolved
from stages.weights import WeightSource


class LazyTensors(MutableMapping[str, Tensor]):
    """Tensors by module-tree name; one that was read or set is kept until it is removed."""

    def __init__(self, names: Mapping[str, str], source: Reader | None = None) -> None:
        """`names`: module-tree name -> name in the checkpoint; without them all are to be set."""
        self._names = dict(names)
        self._source = source
        self._held: dict[str, Tensor] = {}

    def only(self, names: Mapping[str, str]) -> LazyTensors:
        """Those of these names, of which nothing is read yet."""
        return LazyTensors(names, self._source)

    def peek(self, name: str) -> Tensor:
        """A tensor, not kept if it was not there."""
        if name in self._held:
            return self._held[name]
        if self._source is None:
            raise KeyError(name)
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


@dataclass(kw_only=True, slots=True)
class LayerState:
    """The layer's tensors by module-tree name, what is known of its inputs, and what changed.

    Tensors stay in the dtype of the checkpoint until a transform rewrites them: then those that
    will be quantized are float32. `changed` names them. `dtype` is the model's.
    `source` is where they were read from, for a solver that keeps what it finds there.
    `searched` says what transforms chose, pair by pair, for the report.
    `content` names weights and Gram matrices as they were read; empty once they are rewritten.
    """

    subgraph: Subgraph
    tensors: LazyTensors
    statistics: Statistics
    resolved: dict[str, Resolved]
    dtype: torch.dtype
    source: WeightSource | None = None
    content: tuple[str, ...] = ()
    changed: set[str] = field(default_factory=set)
    searched: list[dict[str, Any]] = field(default_factory=list)

    def peek(self, name: str) -> Tensor:
        """A tensor for one look, which is not kept if it was not there."""
        return self.tensors.peek(name)

    def rewrite(self, name: str, value: Tensor) -> None:
        """Put `value` in place of the tensor `name`, in float32 if it is yet to be quantized."""
        module = name.rpartition(".")[0]
        keep = torch.float32 if module in self.resolved else self.tensors[name].dtype
        self.tensors[name] = value.to(keep)
        self.changed.add(name)
