"""Formats that transformers does not load although vLLM does: a table made by loading them.

Loaded with transformers 5.17.0 (compressed-tensors 0.19.0) and 5.24.0 (0.20.0). What the installed
version makes of a checkpoint is measured by the node `verify`; this is what a plan can say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version

from stages.model.blueprint import Blueprint, LinearSpec
from stages.schemes.layouts import PACKED, layout_of
from stages.schemes.resolve import Resolved
from stages.schemes.scheme import SchemeGroup
from stages.schemes.sizes import label

RAISES = "loading raises"
FUSED = "in the original they are one tensor, and it has no way to read them one by one"
CONV1D = (
    "transformers does not read compressed Conv1D modules: compressed-tensors makes parameters for "
    "Linear and Embedding only, so that they load without an exception and the bare codes are used"
)
"""Tried with transformers 5.17.0 and compressed-tensors 0.19.0: relative logits error 1.2."""
LINEARS = frozenset({"Llama4TextExperts"})
"""Containers in whose place transformers has Linears where a checkpoint is compressed."""


def transformers_notes(resolved: Mapping[str, Resolved], blueprint: Blueprint) -> Iterator[str]:
    """One line for each kind of modules in a plan that transformers does not load rightly."""
    lines: dict[str, None] = {}
    if blueprint.shared() & resolved.keys():
        lines["transformers does not read scales of modules that layers share"] = None
    for linear in blueprint.linears():
        if linear.name not in resolved:
            continue
        if f"{linear.prefix}.weight" in blueprint.turned:
            lines[CONV1D] = None
            continue
        group = resolved[linear.name].scheme
        merged = linear.expert and not _stays_linear(linear, blueprint)
        fused = f"{linear.prefix}.weight" in blueprint.cuts
        why = (FUSED if fused else expert_limit(group)) if merged else ""
        if why:
            lines[f"transformers does not read experts in {label(group)}: {why}"] = None
        elif not merged and has_packed_zero_points(group):
            lines[
                f"transformers from 5.23 on does not load {label(group)}, whose zero points are "
                "packed; 5.17 to 5.22 do"
            ] = None
    for line in lines:
        yield f"{line}. vLLM does not mind (transformers {version('transformers')} is installed)"


def _stays_linear(linear: LinearSpec, blueprint: Blueprint) -> bool:
    return blueprint.patches.get(linear.name.rsplit(".", 2)[0]) in LINEARS


def expert_limit(group: SchemeGroup) -> str:
    """Why transformers 5.17 to 5.24 does not read experts of a format; "" where it does.

    It merges the experts of a layer into one parameter while loading, and decompresses them before.
    """
    weights, layout = group.weights, layout_of(group)
    if weights is None:
        return ""
    if layout == "nvfp4-pack-quantized":
        return "it leaves out the global scales, without an exception: logits are wrong"
    if not weights.symmetric:
        return RAISES
    plain_fp8 = weights.type == "float" and weights.num_bits == 8 and layout == "float-quantized"
    if plain_fp8 and weights.strategy in ("tensor", "channel"):
        return ""
    return "" if layout in (PACKED, "mxfp4-pack-quantized", "mxfp6-pack-quantized") else RAISES


def has_packed_zero_points(group: SchemeGroup) -> bool:
    """Whether a format stores zero points several to a word."""
    weights = group.weights
    return weights is not None and not weights.symmetric and layout_of(group) == PACKED
