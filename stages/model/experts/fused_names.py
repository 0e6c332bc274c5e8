"""Fused experts found by the names and shapes of checkpoint tensors alone. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from stages.model.experts.cut import Cut
from stages.model.experts.layout import DOWN, GATE_UP, ROUTED, Layout, transposed_of

FUSED = re.compile(
    r"(?P<base>.+\.experts)\.(?P<leaf>gate_up_proj|down_proj)(?P<bias>_bias)?$"
    r"|(?P<moe>.+\.block_sparse_moe)\.(?P<linear>input_linear|output_linear)\.weight$"
)
LINEARS = {"input_linear": GATE_UP, "output_linear": DOWN}

HALVES = frozenset(
    {
        *("gemma4_text", "mistral4", "llama4_text", "qwen3_vl_moe_text", "qwen3_5_moe_text"),
        *("granitemoe", "granitemoeshared", "granitemoehybrid", "granitemoe_swa"),
        *("hy_v4", "minimax_m3_vl_text", "zaya", "diffusion_gemma_text", "qwen4_exp_text"),
    }
)
ALTERNATING = frozenset({"gpt_oss"})
"""Text models (model_type) whose fused rows are first those of gate and then those of up, or in
turn one of gate and one of up. Names and shapes do not tell: others are left as they are."""


class Shaped(Protocol):
    """A tensor's shape, such as a `TensorSpec` of stages.weights has."""

    @property
    def shape(self) -> tuple[int, ...]: ...


def fused_cuts(specs: Mapping[str, Shaped], model_type: str) -> dict[str, Cut]:
    """Name of one expert's tensor -> the part of a fused tensor that it is.

    `model_type` is the text model's. Empty for models whose layout is not known.
    """
    if model_type not in HALVES | ALTERNATING:
        return {}
    containers: dict[str, dict[str, str]] = {}
    for name in specs:
        found = FUSED.match(name)
        if found is None:
            continue
        base = found["base"] or f"{found['moe']}.experts"
        leaf = found["leaf"] or LINEARS[found["linear"]]
        containers.setdefault(base, {})[f"{leaf}{found['bias'] or ''}"] = name
    cuts: dict[str, Cut] = {}
    for base, stored in containers.items():
        layout = _layout({leaf: specs[name].shape for leaf, name in stored.items()}, model_type)
        if layout is None:
            continue
        for leaf, name in stored.items():
            for local, cut in layout.cuts(leaf, name, ()).items():
                cuts[f"{base}.{local}"] = cut
    return cuts


def text_type(config: Mapping[str, Any], parts: Iterable[str]) -> str:
    """The model_type of the text model; `parts` are the keys under which it may have a config."""
    nested = (config[key] for key in parts if isinstance(config.get(key), Mapping))
    return str(next((part.get("model_type") for part in nested), config.get("model_type")))


def _layout(shapes: Mapping[str, tuple[int, ...]], model_type: str) -> Layout | None:
    first, down = shapes.get(GATE_UP, ()), shapes.get(DOWN, ())
    if len(first) != 3 or len(down) != 3 or first[0] != down[0]:
        return None
    transposed = transposed_of(first, down, 2)
    if transposed is None:
        return None
    return Layout(
        experts=down[0],
        hidden=down[2] if transposed else down[1],
        intermediate=down[1] if transposed else down[2],
        gate=True,
        bias=any(leaf.endswith("_bias") for leaf in shapes),
        transposed=transposed,
        interleaved=model_type in ALTERNATING,
        identities=False,
        arguments=ROUTED,
    )
