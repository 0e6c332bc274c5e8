"""Read auto-round checkpoints: integers as GPTQ or AWQ pack them, FP8, MXFP4, MXFP8 and NVFP4.

`packing_format` says who else packs so: "auto_round:auto_gptq" stores zero points minus one,
"auto_round" (also with a kernel after the colon) and "auto_round:gptqmodel" as they are;
"auto_round:auto_awq" is AWQ's version gemm, "auto_round:fp8_static" FP8 with a scale for each row,
"auto_round:llm_compressor" has the tensors of compressed-tensors. Scales of symmetric integers may
be negative, so that -8 is a code too. `extra_config` gives modules other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pipeline.errors import UserError
from stages.formats.quantization_config import group_to_config
from stages.quantized.awq import AwqSource
from stages.quantized.compressed_tensors import CompressedSource
from stages.quantized.fp8 import Fp8Source
from stages.quantized.gptq import GptqSource
from stages.quantized.grids import MXFP4, MXFP8, NVFP4
from stages.quantized.source import QuantizedSource, option, part_of
from stages.schemes.quant_args import QArgs
from stages.weights.source import WeightSource

BYTES = ("auto_round:fp8_static", "auto_round:fp8")
LIBRARY = "auto_round:llm_compressor"
DENSE = 16

LAYOUTS: dict[tuple[str, int], tuple[str, QArgs]] = {
    ("mx_fp", 4): ("mxfp4-pack-quantized", MXFP4),
    ("mx_fp", 8): ("mxfp8-quantized", MXFP8),
    ("nv_fp", 4): ("nvfp4-pack-quantized", NVFP4),
}
"""Format and numbers in compressed-tensors by data_type and bits."""


def auto_round_source(
    source: WeightSource, config: Mapping[str, Any], dtype: str
) -> QuantizedSource:
    """The reader for a checkpoint's packing; UserError for one that is not read."""
    packing = str(config.get("packing_format", "auto_round:auto_gptq"))
    if packing in BYTES:
        _same_everywhere(config)
        return Fp8Source(source, {"fmt": config.get("fmt")}, dtype)
    if packing == LIBRARY:
        _same_everywhere(config)
        return CompressedSource(source, _as_compressed_tensors(config), dtype)
    option(config, "data_type", ("int", None), "int")
    kernel = packing.removeprefix("auto_round:")
    if kernel in ("auto_awq", "awq"):
        _same_everywhere(config)
        numbers = {name: config[name] for name in ("bits", "group_size") if name in config}
        return AwqSource(source, {**numbers, "zero_point": True}, dtype)
    kernels = ("auto_gptq", "gptq", "gptqmodel", "exllamav2", "tritonv2", "auto_round", "marlin")
    option({"packing_format": kernel}, "packing_format", kernels, None)
    own = {name: config[name] for name in ("bits", "sym", "group_size") if name in config}
    layout = "gptq" if kernel in ("auto_gptq", "gptq") else "gptq_v2"
    return GptqSource(
        source, {**own, "checkpoint_format": layout, "dynamic": _rules(config, own)}, dtype
    )


def _rules(config: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`extra_config` as GPTQModel writes it: patterns of names' starts, exact names first."""
    exact: dict[str, Any] = {}
    others: dict[str, Any] = {}
    for name, changed in part_of(config, "extra_config").items():
        if not isinstance(changed, Mapping):
            continue
        option(changed, "data_type", (config.get("data_type", "int"), None), None)
        if changed.get("bits", own.get("bits")) == DENSE:
            continue
        given = {key: changed[key] for key in own if changed.get(key) is not None}
        exact[re.escape(name) + "$"] = given
        others[name if name.startswith((".*", "^")) else f".*(?:{name})"] = given
    return exact | others


def _same_everywhere(config: Mapping[str, Any]) -> None:
    """Raise UserError if modules have other numbers in a packing where those are not read."""
    for name, changed in part_of(config, "extra_config").items():
        bits = changed.get("bits") if isinstance(changed, Mapping) else None
        if bits != DENSE:
            raise UserError(
                f"quantization_config.extra_config gives {name!r} numbers of its own, which is "
                f"not read in the packing {config.get('packing_format')!r}",
                remedy="give the model that it was made from",
            )


def _as_compressed_tensors(config: Mapping[str, Any]) -> dict[str, Any]:
    """The quantization_config that compressed-tensors would have for the same tensors."""
    kind = (str(config.get("data_type")).removesuffix("_rceil"), config.get("bits"))
    if kind not in LAYOUTS:
        known = ", ".join(f"{name}{bits}" for name, bits in LAYOUTS)
        raise UserError(
            f"quantization_config says data_type {kind[0]!r} with {kind[1]!r} bits, which is not "
            "read here",
            remedy=f"what is read: {known}; else give the model that it was made from",
        )
    layout, weights = LAYOUTS[kind]
    option(config, "group_size", (weights.group_size,), weights.group_size)
    return {
        "quant_method": "compressed-tensors",
        "format": layout,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group_to_config(weights, None, layout, ["Linear"])},
        "ignore": [],
    }
