"""One decoder layer while it is being compressed."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from stages.compress.lazy import LazyTensors
from stages.compress.statistics import Statistics
from stages.model.blueprint import Subgraph
from stages.schemes.resolve import Resolved
from stages.weights import WeightSource


@dataclass(kw_only=True, slots=True)
class LayerState:
    """The layer's tensors by module-tree name, what is known of its inputs, and what changed.

    Tensors stay in the dtype of the checkpoint until a transform rewrites them: then those that
    will be quantized are float32. `changed` names them. `dtype` is the model's.
    `source` is where they were read from, for a solver that keeps what it finds there.
    `content` names weights and Gram matrices as they were read; empty once they are rewritten.
    """

    subgraph: Subgraph
    tensors: MutableMapping[str, Tensor]
    statistics: Statistics
    resolved: dict[str, Resolved]
    dtype: torch.dtype
    source: WeightSource | None = None
    content: tuple[str, ...] = ()
    changed: set[str] = field(default_factory=set)

    def peek(self, name: str) -> Tensor:
        """A tensor for one look: where tensors are read when asked for, it is not kept."""
        tensors = self.tensors
        return tensors.peek(name) if isinstance(tensors, LazyTensors) else tensors[name]

    def rewrite(self, name: str, value: Tensor) -> None:
        """Put `value` in place of the tensor `name`, in float32 if it is yet to be quantized."""
        module = name.rpartition(".")[0]
        keep = torch.float32 if module in self.resolved else self.tensors[name].dtype
        self.tensors[name] = value.to(keep)
        self.changed.add(name)
