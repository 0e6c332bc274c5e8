"""Units of a multimodal checkpoint that are no decoder layers: those of its towers. No torch here.

Where there is no model class, a unit is a decoder layer if it stands beside the token embedding,
or an extra prediction layer if its Linears have the names and inputs of a decoder layer's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stages.model.blueprint import LinearSpec

NO_PART = frozenset({"quantization_config", "generation_config", "compression_config"})
NUMBERS = re.compile(r"(?<=\.)\d+(?=\.|$)")


def tower_units(
    units: Mapping[str, Sequence[LinearSpec]],
    config: Mapping[str, Any],
    text: Sequence[str],
    embedding: str,
) -> frozenset[str]:
    """The names of the units that belong to towers; empty for a model of text alone.

    units: name -> Linears; `text` are the config keys of text models, `embedding` the name of the
    token embedding ("" if there is none).
    """
    parts = [
        key
        for key, value in config.items()
        if key.endswith("_config") and isinstance(value, Mapping) and value
        if key not in NO_PART and key not in text
    ]
    root = embedding.rpartition(".")[0]
    layers = [unit for unit in units if unit.rpartition(".")[0].rpartition(".")[0] == root]
    if not parts or not embedding or not layers:
        return frozenset()
    widths: dict[str, set[int]] = {}
    for layer in layers:
        for name, width in _inputs(layer, units[layer]).items():
            widths.setdefault(name, set()).add(width)
    towers = []
    for unit, linears in units.items():
        if unit in layers:
            continue
        own = _inputs(unit, linears)
        same = [name for name, width in own.items() if width in widths.get(name, ())]
        if 2 * len(same) < len(own):
            towers.append(unit)
    return frozenset(towers)


def _inputs(unit: str, linears: Sequence[LinearSpec]) -> dict[str, int]:
    """Name of each Linear inside its unit, `*` for numbers -> its input features."""
    return {NUMBERS.sub("*", lin.name.removeprefix(unit)): lin.in_features for lin in linears}
