"""Artifacts of a compressed layer and of its attention states: file names, groups in layer.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.key import Json, canonical
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup

SHARD, LAYER, CHECKSUM = "shard.safetensors", "layer.json", "checksum.safetensors"
NEGATIVE = "negative_scales"
"""In the entry of a module: some of its scales are negative, as its solver was asked to try."""
CACHE = "cache.safetensors"
"""File of a `cache` result: qparams of attention states by checkpoint name."""


def to_groups(schemes: Mapping[str, SchemeGroup]) -> Json:
    """Schemes of modules (by checkpoint name) as JSON data: each scheme once, with its modules."""
    groups: dict[str, dict[str, Any]] = {}
    for prefix, scheme in schemes.items():
        plain = canonical(scheme)
        groups.setdefault(repr(plain), {**plain, "targets": []})["targets"].append(prefix)
    return list(groups.values())


def from_groups(groups: Iterable[Mapping[str, Any]]) -> list[SchemeGroup]:
    """The schemes in the output of :func:`to_groups`; their targets are the modules."""
    return [
        SchemeGroup(
            weights=_args(group["weights"]),
            input_activations=_args(group["input_activations"]),
            format=group["format"],
            targets=list(group["targets"]),
        )
        for group in groups
    ]


def _args(values: Mapping[str, Any] | None) -> QArgs | None:
    return None if values is None else QArgs(**values)
