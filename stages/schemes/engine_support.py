"""Engine support of number formats: a table made by reading and running the engines.

Stated for vLLM 0.32 (its compressed-tensors loader; the CPU column was run) and transformers 5.17
to 5.24 (both ends were run, and the releases between where they differ).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stages.model.blueprint import EMBEDDING, Blueprint
from stages.schemes.layouts import BYTES, PACKED, layout_of
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from stages.schemes.sizes import label

ROWS = ("channel", "group")
VLLM = "0.32"
GPT_OSS = "gpt_oss"
FUSED = re.compile(
    r"\.(?:(?:gate_up_proj|up_proj|down_proj)(?:_bias)?|(?:input|output)_linear\.weight)$"
)
"""Fused tensors of experts that engines take one by one as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """A loader of vLLM: the formats that it fits, and the hardware that runs them.

    `cpu` says why vLLM does not run them on a CPU; "" where it does.
    """

    name: str
    fits: Callable[[QArgs, QArgs | None, str], bool]
    gpu: str = "any since Turing"
    cpu: str = "no CPU kernel"


def _plain_8(weights: QArgs, inputs: QArgs | None, kind: str) -> bool:
    both = inputs is not None and weights.num_bits == inputs.num_bits == 8
    return both and weights.type == kind and inputs is not None and inputs.type == kind


def _same_or_none(weights: QArgs, inputs: QArgs | None) -> bool:
    return inputs is None or inputs.scale_dtype == weights.scale_dtype


READERS = (
    Reader(
        name="NVFP4",
        fits=lambda w, x, _: w.strategy == "tensor_group",
        gpu="Blackwell; Marlin emulates it before",
    ),
    Reader(
        name="MXFP4",
        fits=lambda w, x, _: w.scale_dtype == "uint8" and w.num_bits == 4 and _same_or_none(w, x),
        gpu="Blackwell; emulated before",
    ),
    Reader(
        name="MXFP8",
        fits=lambda w, x, _: w.scale_dtype == "uint8" and w.num_bits == 8,
        gpu="Blackwell; emulated before",
    ),
    Reader(
        name="W4A8-FP8",
        fits=lambda w, x, layout: (
            w.type == "int" and w.num_bits == 4 and w.symmetric and w.strategy == "group"
            and x is not None and x.type == "float" and layout == PACKED
        ),
        gpu="Hopper only",
    ),
    Reader(
        name="WN-A8/A4 integer",
        fits=lambda w, x, layout: (
            w.type == "int" and w.strategy in ROWS and layout == PACKED and x is not None
            and x.type == "int" and x.symmetric and x.dynamic is True
            and x.strategy in ("token", "group")
        ),
    ),
    Reader(
        name="WNA16",
        fits=lambda w, x, layout: (
            w.type == "int" and w.strategy in ROWS and layout == PACKED and x is None
            and w.num_bits == 4
        ),
        cpu="",
    ),
    Reader(
        name="WNA16",
        fits=lambda w, x, layout: (
            w.type == "int" and w.strategy in ROWS and layout == PACKED and x is None
        ),
        cpu="no CPU kernel but for 4 bits",
    ),
    Reader(
        name="W8A8-INT8",
        fits=lambda w, x, layout: (
            _plain_8(w, x, "int") and w.symmetric and layout == BYTES
            and w.strategy in ("tensor", "channel") and x is not None
            and x.strategy == ("token" if x.dynamic else "tensor")
        ),
        cpu="",
    ),
    Reader(
        name="W4A8 integer, a byte each",
        fits=lambda w, x, layout: (
            w.type == "int" and w.num_bits == 4 and w.symmetric and w.strategy in ROWS
            and layout == BYTES and x is not None and x.type == "int" and x.dynamic is True
        ),
        gpu="Arm CPUs and XPU; no CUDA kernel",
        cpu="",
    ),
    Reader(
        name="FP8 block",
        fits=lambda w, x, _: w.type == "float" and w.strategy == "block",
        gpu="Hopper and newer; Marlin before",
        cpu="needs AMX",
    ),
    Reader(
        name="FP8",
        fits=lambda w, x, _: (
            _plain_8(w, x, "float") and w.strategy in ("tensor", "channel") and x is not None
            and x.dynamic is True
        ),
        gpu="Ada and newer; Marlin as W8A16 before",
        cpu="",
    ),
    Reader(
        name="FP8, static inputs",
        fits=lambda w, x, _: (
            _plain_8(w, x, "float") and w.strategy in ("tensor", "channel") and x is not None
            and x.strategy == "tensor"
        ),
        gpu="Ada and newer; Marlin as W8A16 before",
    ),
)  # fmt: skip
"""The first one that fits counts, as in vLLM."""


def reader(group: SchemeGroup) -> Reader | None:
    """The loader of vLLM for modules of this format; None if there is none."""
    if group.weights is None:
        return None
    layout = layout_of(group)
    for entry in READERS:
        if entry.fits(group.weights, group.input_activations, layout):
            return entry
    return None


def packs_zero_points(group: SchemeGroup) -> bool:
    """Whether a group's zero points are stored packed, several rows to a word."""
    weights = group.weights
    return (
        weights is not None
        and not weights.symmetric
        and weights.strategy in ROWS
        and layout_of(group) == PACKED
    )


def engine_warnings(scheme: SchemeConfig) -> Iterator[str]:
    """Formats of modules, KV cache and attention that an engine does not load, by version."""
    for _, group in scheme.ordered():
        if packs_zero_points(group):
            yield (
                f"transformers loads {label(group)} (packed zero points) up to 5.22.2; from 5.23.0 "
                "on only with quantization_config=CompressedTensorsConfig(dequantize=True), "
                "whoever wrote it"
            )
        if reader(group) is None:
            yield (
                f"no vLLM loader is known for {label(group)} ({layout_of(group)}): transformers "
                "and compressed-tensors decompress it"
            )
    if any(EMBEDDING in group.targets for _, group in scheme.ordered()):
        yield "transformers cannot load an embedding that is stored compressed; vLLM can"
    for name, args in (("kv_cache", scheme.kv_cache), ("attention", scheme.attention)):
        if args is not None and not (args.type == "float" and args.num_bits == 8):
            yield f"vLLM loads scheme.{name} in FP8 only, not in {args.num_bits}-bit {args.type}"


def expert_warnings(blueprint: Blueprint) -> Iterator[str]:
    """Models whose experts vLLM does not take under the names of one expert's Linears."""
    if blueprint.model_type == GPT_OSS and any(linear.expert for linear in blueprint.linears()):
        yield (
            f"vLLM {VLLM} passes over the gate_proj and up_proj of gpt-oss's experts without an "
            "error (it looks for w13, both in one): compressed-tensors reads the checkpoint"
        )
    own = next((c.stored for c in blueprint.cuts.values() if not FUSED.search(c.stored)), None)
    if own is not None:
        yield (
            f"vLLM {VLLM} takes experts that are fused under names of their own ({own}) from those "
            "tensors only, so that it loads none that are compressed: compressed-tensors reads them"
        )


def vllm_support(scheme: SchemeConfig) -> dict[str, Any]:
    """Entry of vLLM under `engines` of result.json: by the table, not by loading.

    {"version", "checked": False, "loads": whether a loader is known for every format, "why"}.
    """
    unknown = [label(group) for _, group in scheme.ordered() if reader(group) is None]
    why = list(engine_notes(scheme)) + [f"{name}: no loader is known" for name in unknown]
    return {"version": VLLM, "checked": False, "loads": not unknown, "why": why}


def engine_notes(scheme: SchemeConfig) -> Iterator[str]:
    """One line for each format: the loader in vLLM, and the hardware that runs it."""
    for _, group in scheme.ordered():
        found = reader(group)
        if found is None:
            continue
        cpu = "runs" if not found.cpu else found.cpu
        yield f"{label(group)}: vLLM reads it as {found.name} (GPU: {found.gpu}; CPU: {cpu})"
