"""Types of decoder layers as a blueprint tells them apart: class, tensors, values of the config."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import Any

from stages.model.blueprint import Blueprint


def layer_types(blueprint: Blueprint) -> list[Hashable]:
    """The type of every decoder layer, in order: equal for layers that differ in weights only."""
    count = len(blueprint.layers)
    lists = list(_lists(blueprint.config, count))
    return [
        (
            layer.kind,
            tuple(str(values[layer.index]) for values in lists),
            tuple(sorted((n.removeprefix(layer.name), s) for n, s in layer.shapes.items())),
            tuple(sorted(name.removeprefix(layer.name) for name in layer.shared)),
        )
        for layer in blueprint.layers
    ]


def firsts_after_another(blueprint: Blueprint) -> tuple[int, ...]:
    """Indices of the first layer of each type among those that have a layer before them."""
    types = layer_types(blueprint)
    return tuple(index for index in range(1, len(types)) if types[index] not in types[1:index])


def _lists(config: Mapping[str, Any], count: int) -> Iterator[list[Any]]:
    """Lists in a config that have a value for each layer, but for plain numbering."""
    for value in config.values():
        if isinstance(value, Mapping):
            yield from _lists(value, count)
        elif isinstance(value, list | tuple) and len(value) == count:
            if list(value) != list(range(count)):
                yield list(value)
