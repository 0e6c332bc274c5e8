"""Fewer decoder layers that have every kind of layer, and every kind next to the same kinds.

Nothing is known of what config fields mean: a small number of layers is tried, the model is built
on the meta device, and its layers are compared with those of the model with all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import nn

from pipeline.errors import UserError
from stages.model.meta_model import config_of, meta_model, tree_of
from stages.model.shrunken.config_fields import Kind, kind_of

FEW = 3
"""So that a layer has one before it, and another before that."""
BUDGET = 300
"""Decoder layers that may be built to find a small number of them."""
INDEX = re.compile(r"\.\d+\b")
Signature = tuple[object, ...]
"""Everything that tells kinds of layers apart."""


def small_depth(config: Mapping[str, Any], path: Sequence[str], depth: str) -> dict[str, Any]:
    """A config with fewer layers, or the same one where that loses a kind of layer.

    `config` is a parsed config.json, `path` leads to the text config in it, and `depth` is the name
    of the field there that counts the decoder layers.
    """
    count = _at(config, path).get(depth, 0)  # 0: it is the length of a list
    whole = signatures(config)
    if whole is None or count <= FEW:
        return dict(config)
    kinds = {signature: i for i, signature in enumerate(dict.fromkeys(whole))}
    sequence = [kinds[signature] for signature in whole]
    wanted, budget = _pairs(sequence), BUDGET
    for small in _candidates(config, path, depth, sequence):
        budget -= _at(small, path)[depth]
        if budget < 0:
            break
        found = [kinds.get(signature, -1) for signature in signatures(small) or ()]
        if _pairs(found) == wanted:
            return small
    return dict(config)


def without_repeats(sequence: Sequence[int]) -> list[int]:
    """Indices of the items left once repeated parts are out, in order.

    Every item is left, and so is every pair of neighbours, and no other pair comes to be.
    """
    kept, wanted = list(range(len(sequence))), _pairs(sequence)
    for length in range(len(kept) - FEW, 0, -1):
        start = 0
        while start + length < len(kept) and len(kept) - length >= FEW:
            same = sequence[kept[start]] == sequence[kept[start + length]]
            rest = kept[:start] + kept[start + length :]
            if same and _pairs([sequence[i] for i in rest]) == wanted:
                kept = rest
            else:
                start += 1
    return kept


def _pairs(sequence: Sequence[int]) -> set[tuple[int, int]]:
    return set(pairwise(sequence))


def shallow_towers(config: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """The config with at most two layers in every part that is not on `path`, the text model."""
    small: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and str(name).endswith("config"):
            on_path = bool(path) and name == path[0]
            small[name] = shallow_towers(value, path[1:]) if on_path else _shallow(value)
        else:
            small[name] = value
    return small


def _shallow(config: Mapping[str, Any]) -> dict[str, Any]:
    counts = [v for n, v in config.items() if kind_of(n) is Kind.DEPTH and type(v) is int and v > 2]
    if not counts:
        return dict(config)
    count = max(counts)
    small = {n: _cut(n, v, count, (0, 1)) for n, v in config.items()}
    depths = {n: min(v, 2) for n, v in config.items() if type(v) is int and v == count}
    return small | {n: v for n, v in depths.items() if kind_of(n) is Kind.DEPTH}


def _candidates(
    config: Mapping[str, Any], path: Sequence[str], depth: str, sequence: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Configs with fewer layers: without repeats first, then the first ones of any number.

    A number of layers of a kind (those that share keys, say) may count from the first layer or from
    the last one, or be a period.
    """
    text, count = _at(config, path), len(sequence)
    parts = {n: v for n, v in text.items() if _is_count(n, v) and n != depth and 0 < v < count}
    kept = without_repeats(sequence)
    counted = [
        {name: sum(i < value for i in kept) for name, value in parts.items()},
        {name: sum(i >= count - value for i in kept) for name, value in parts.items()},
        parts,
    ]
    yield from (_with(config, path, _left(text, kept, count) | each) for each in counted)
    for number in range(max(FEW, len(_pairs(sequence)) + 1), count):
        yield _with(config, path, _left(text, range(number), count))


def _left(text: Mapping[str, Any], kept: Sequence[int], count: int) -> dict[str, Any]:
    """The text config with the layers `kept` of `count`."""
    cut = {name: _cut(name, value, count, kept) for name, value in text.items()}
    counts = [n for n, value in text.items() if _is_count(n, value) and value == count]
    return cut | dict.fromkeys(counts, len(kept))


def _is_count(name: str, value: object) -> bool:
    return kind_of(name) is Kind.DEPTH and type(value) is int


def _cut(name: str, value: Any, count: int, kept: Sequence[int]) -> Any:
    """One value per layer: those of the kept layers; indices of layers: those that are left."""
    by_layer = isinstance(value, Mapping) and "layer" in name
    if by_layer and value and all(str(key).isdigit() for key in value):
        return {str(kept.index(int(k))): v for k, v in value.items() if int(k) in kept}
    if not isinstance(value, str | list | tuple):
        return value
    indices = [item for item in value if type(item) is int]
    named = any(word in name for word in ("layer", "ind", "idx"))
    if named and value and len(indices) == len(value) and sorted(set(indices)) == indices:
        return [kept.index(item) for item in indices if item in kept] if indices[0] >= 0 else value
    if isinstance(value, str) and not any(word in name for word in ("layer", "pattern")):
        return value
    if len(value) == count:
        left = [value[i] for i in kept]
        return "".join(left) if isinstance(value, str) else left
    return value


def signatures(config: Mapping[str, Any], *, widths: bool = True) -> list[Signature] | None:
    """What each decoder layer is; None for a config that describes no model.

    Without `widths`, layers of a shrunken instance have those of the model's own layers.
    """
    try:
        model = meta_model(config_of(config), "float32")
        tree = tree_of(model)
    except UserError:
        return None
    layers = [model.get_submodule(name) for name in tree.layers]
    text = model.config.get_text_config(decoder=True).to_dict()
    lists = [
        values
        for values in text.values()
        if isinstance(values, list | tuple)
        and len(values) == len(layers)
        and list(values) != list(range(len(layers)))
    ]
    seen: set[int] = set()
    found: list[Signature] = []
    for index, layer in enumerate(layers):
        shared = frozenset(INDEX.sub(".*", n) for n, p in layer.named_parameters() if id(p) in seen)
        seen.update(id(p) for p in layer.parameters())
        kinds = tuple(_kind(values[index], widths=widths) for values in lists)
        modules = {_module(n, m, widths=widths): None for n, m in layer.named_modules()}
        found.append((kinds, shared, *modules))
    return found


def _kind(value: object, *, widths: bool) -> str:
    """A value of a list with one for each layer; a number beyond 1 may be a width."""
    number = isinstance(value, int | float) and value not in (0, 1)
    return type(value).__name__ if number and not widths else str(value)


def _module(name: str, module: nn.Module, *, widths: bool) -> Signature:
    shapes = tuple(
        (n, tuple(p.shape) if widths else p.dim())
        for n, p in module.named_parameters(recurse=False)
    )
    attributes = tuple(
        (key, value if isinstance(value, bool | str) else type(value).__name__)
        for key, value in sorted(vars(module).items())
        if not key.startswith("_") and isinstance(value, bool | str | int | float | None)
    )
    return INDEX.sub(".*", name), type(module).__name__, shapes, attributes


def _at(config: Mapping[str, Any], path: Sequence[str]) -> Mapping[str, Any]:
    for name in path:
        config = config[name]
    return config


def _with(
    config: Mapping[str, Any], path: Sequence[str], text: Mapping[str, Any]
) -> dict[str, Any]:
    if not path:
        return dict(text)
    return {**config, path[0]: _with(config[path[0]], path[1:], text)}
