"""Refuse a quantization_config with fields or formats that this version does not know.

compressed-tensors ignores fields that it does not know, and so would miss that weights are stored
in another way than those it knows say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig

from stages.formats.quantization_config import MIXED

FIELDS = frozenset(QuantizationConfig.model_fields) | {
    *("version", "sparsity_config", "transform_config"),
    *("run_compressed", "dequantize", "use_optimized_inference"),  # of transformers, for loading
}
SHOWN = 200


def unknown_parts(config: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each field or format of a quantization_config that nothing here reads."""
    if strange := sorted(set(config) - FIELDS):
        names = ", ".join(map(repr, strange))[:SHOWN]
        yield f"quantization_config has fields that this version does not know: {names}"
    known = {*BaseCompressor.registered_names(), MIXED}
    layout = config.get("format", MIXED)
    if not isinstance(layout, str) or layout not in known:
        yield (
            f"quantization_config has the format {layout!r:.{SHOWN}}, which this version does not "
            f"know; it knows {', '.join(sorted(known))}"
        )
    for name, what in (("sparsity_config", "sparse weights"), ("transform_config", "transforms")):
        value = config.get(name)
        dense = isinstance(value, dict) and value.get("format") == "dense"
        if value and not (name == "sparsity_config" and dense):
            yield f"{name} describes {what}, which this version cannot check"
