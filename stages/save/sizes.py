"""Size of a checkpoint in bytes and in bits per weight, for result.json and the model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod
from typing import Any

from stages.model.blueprint import DTYPE_BYTES, Blueprint
from stages.weights import TensorSpec


def sizes(
    *,
    original: Iterable[TensorSpec],
    written: int,
    compressed: bool,
    blueprint: Blueprint,
    rows: Iterable[Mapping[str, Any]],
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """`size` of result.json for `written` bytes of tensors.

    `bits_per_weight` is over the weights that were compressed: their codes, scales and zero points
    (None where there are none). `whole_bits_per_weight` and `original_bits_per_weight` are over all
    weights of the model, embeddings and norms among them. `rows` are those of result.json's
    `layers`, `source` what the loader said of the original.
    """
    specs = list(original)
    stored, weights = sum(spec.bytes for spec in specs), sum(prod(spec.shape) for spec in specs)
    per_byte = 8 / max(1, weights)
    bits = compressed_bits(rows, blueprint)
    if bits is not None and not compressed:
        bits = 8.0 * DTYPE_BYTES[blueprint.dtype]
    size = {
        "original_bytes": source.get("whole_bytes", stored),
        "compressed_bytes": written,
        "bits_per_weight": bits,
        "whole_bits_per_weight": per_byte * written,
        "original_bits_per_weight": per_byte * stored,
    }
    return size | ({"source_bytes": source["stored_bytes"]} if "stored_bytes" in source else {})


def compressed_bits(rows: Iterable[Mapping[str, Any]], blueprint: Blueprint) -> float | None:
    """Mean bits of the modules in `rows`, each by its number of weights."""
    modules = [*blueprint.ends(), *(own for layer in blueprint.layers for own in layer.linears)]
    elements = {own.name: own.in_features * own.out_features for own in modules}
    counted = [(elements[row["name"]], row["bits"]) for row in rows if row.get("bits") is not None]
    whole = sum(count for count, _ in counted)
    return sum(count * bits for count, bits in counted) / whole if whole else None
