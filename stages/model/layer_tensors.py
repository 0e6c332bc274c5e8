"""Read the tensors of a decoder layer, or of modules outside, by module-tree name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from torch import Tensor

from stages.model.blueprint import Blueprint, Subgraph


class Reader(Protocol):
    """The part of a weight source that is used here."""

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]: ...


def layer_tensors(
    subgraph: Subgraph, source: Reader, *, original: Reader | None = None, device: str = "cpu"
) -> dict[str, Tensor]:
    """All tensors of one decoder layer, by module-tree name, in the dtype of the checkpoint.

    `original`: where those are that the layer shares, if `source` has only what the layer writes.
    """
    shared = () if original is None else subgraph.shared
    own = {name: stored for name, stored in subgraph.tensors.items() if name not in shared}
    found = _read(own, source, device)
    if original is not None and shared:
        found |= _read({name: subgraph.tensors[name] for name in shared}, original, device)
    return found


def outside_tensors(
    blueprint: Blueprint, names: Iterable[str], source: Reader, *, device: str = "cpu"
) -> dict[str, Tensor]:
    """Tensors outside the layers, by module-tree name (of `blueprint.outside`).

    Tied parameters share one tensor.
    """
    return _read({name: blueprint.outside[name] for name in names}, source, device)


def all_tensors(blueprint: Blueprint, source: Reader, *, device: str = "cpu") -> dict[str, Tensor]:
    """Every tensor of the model by module-tree name, for models that fit into memory."""
    names = dict(blueprint.outside)
    for layer in blueprint.layers:
        names.update(layer.tensors)
    return _read(names, source, device)


def _read(names: Mapping[str, str], source: Reader, device: str) -> dict[str, Tensor]:
    tensors = source.read(dict.fromkeys(names.values()), device=device)
    return {parameter: tensors[name] for parameter, name in names.items()}
