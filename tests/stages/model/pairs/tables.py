"""Smoothing pairs of ten model types as people wrote them down: a test of the finder."""

from __future__ import annotations

from collections.abc import Mapping

from stages.model.families import ATTENTION, MLP, Family

EXPERTS = ("mlp.experts.*.gate_proj", "mlp.experts.*.up_proj", "mlp.gate")
SHARED = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert_gate")

DENSE = Family(norms={"input_layernorm": ATTENTION, "post_attention_layernorm": MLP})
SPARSE = Family(
    norms={"input_layernorm": ATTENTION, "post_attention_layernorm": (*MLP, *EXPERTS, *SHARED)}
)
SANDWICH = Family(
    norms={"input_layernorm": ATTENTION, "pre_feedforward_layernorm": MLP}, norm_offset=1.0
)
FUSED_LINEARS = Family(
    norms={
        "input_layernorm": ("self_attn.qkv_proj",),
        "post_attention_layernorm": ("mlp.gate_up_proj",),
    }
)
FAMILIES: Mapping[str, Family] = {
    "llama": DENSE,
    "qwen2": DENSE,
    "qwen3": DENSE,
    "mistral": DENSE,
    "gemma2": SANDWICH,
    "gemma3_text": SANDWICH,
    "phi3": FUSED_LINEARS,
    "qwen2_moe": SPARSE,
    "qwen3_moe": SPARSE,
    "mixtral": SPARSE,
}
