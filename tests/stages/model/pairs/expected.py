"""Norms and what they feed in many architectures, as their code in transformers has it."""

from __future__ import annotations

from collections.abc import Mapping

QUICK = frozenset({"cohere", "falcon", "opt", "deepseek_v3", "phi", "qwen3_5_text"})
"""Architectures of the default suite; the others are slow tests."""

ATTENTION = "self_attn.q_proj self_attn.k_proj self_attn.v_proj"
MLP = "mlp.gate_proj mlp.up_proj"
EXPERTS = "mlp.experts.*.gate_proj mlp.experts.*.up_proj"
SHARED = "mlp.shared_experts.gate_proj mlp.shared_experts.up_proj"
ONE_SHARED = "mlp.shared_expert.gate_proj mlp.shared_expert.up_proj mlp.shared_expert_gate"
INDEXER = "self_attn.indexer.wk self_attn.indexer.weights_proj"
LATENT = (
    "self_attn.kv_a_layernorm -> self_attn.kv_b_proj",
    "post_attention_layernorm -> mlp.gate_proj mlp.up_proj",
)
DEEPSEEK = (
    *LATENT,
    "input_layernorm -> self_attn.q_a_proj self_attn.kv_a_proj_with_mqa",
    "self_attn.q_a_layernorm -> self_attn.q_b_proj",
    f"post_attention_layernorm -> {EXPERTS} mlp.gate {SHARED}",
)
INDEXED = (
    *LATENT,
    f"input_layernorm -> self_attn.q_a_proj self_attn.kv_a_proj_with_mqa {INDEXER}",
    "self_attn.q_a_layernorm -> self_attn.q_b_proj self_attn.indexer.wq_b",
    f"post_attention_layernorm -> {EXPERTS} mlp.gate {SHARED}",
)
GEMMA = (f"1+input_layernorm -> {ATTENTION}", f"1+pre_feedforward_layernorm -> {MLP}")
OPT = "self_attn.k_proj self_attn.v_proj self_attn.q_proj"

EXPECTED: Mapping[str, tuple[str, ...]] = {
    # dense, one norm before each block
    "granite": (f"input_layernorm -> {ATTENTION}", f"post_attention_layernorm -> {MLP}"),
    "starcoder2": (f"input_layernorm -> {ATTENTION}", "post_attention_layernorm -> mlp.c_fc"),
    "glm4": (f"input_layernorm -> {ATTENTION}", "post_attention_layernorm -> mlp.gate_up_proj"),
    "opt": (f"self_attn_layer_norm -> {OPT}", "final_layer_norm -> fc1"),
    "bloom": (
        "input_layernorm -> self_attention.query_key_value",
        "post_attention_layernorm -> mlp.dense_h_to_4h",
    ),
    "mpt": ("norm_1 -> attn.Wqkv", "norm_2 -> ffn.up_proj"),
    # norms that multiply by 1 + weight
    "gemma2": GEMMA,
    "vaultgemma": GEMMA,
    "nemotron": (f"1+input_layernorm -> {ATTENTION}", "1+post_attention_layernorm -> mlp.up_proj"),
    # attention and MLP side by side
    "cohere": (f"input_layernorm -> {ATTENTION} {MLP}",),
    "phi": (f"input_layernorm -> {ATTENTION} mlp.fc1",),
    "gptj": ("ln_1 -> attn.k_proj attn.v_proj attn.q_proj mlp.fc_in",),
    "falcon_7b": ("input_layernorm -> self_attention.query_key_value mlp.dense_h_to_4h",),
    "falcon": ("ln_attn -> self_attention.query_key_value", "ln_mlp -> mlp.dense_h_to_4h"),
    "gpt_neox": (
        "input_layernorm -> attention.query_key_value",
        "post_attention_layernorm -> mlp.dense_h_to_4h",
    ),
    # norms without readers that a factor could go to: after blocks, without weights, residuals
    "olmo": (),
    "olmo2": (),
    "exaone4": (),
    "gemma3n_text": (f"pre_feedforward_layernorm -> {MLP}",),
    "minimax": ("self_attn.norm -> self_attn.out_proj",),
    "gpt2": ("ln_1 -> attn.c_attn", "ln_2 -> mlp.c_fc"),  # its matrices are transposed
    # latent attention
    "minicpm3": (*DEEPSEEK[:4],),
    "deepseek_v3": DEEPSEEK,
    "deepseek_v32": INDEXED,
    "glm_moe_dsa": INDEXED,
    # experts, with routers
    "mixtral": (
        f"input_layernorm -> {ATTENTION}",
        f"post_attention_layernorm -> mlp.gate {EXPERTS}",
    ),
    "gpt_oss": (
        f"input_layernorm -> {ATTENTION}",
        f"post_attention_layernorm -> mlp.router {EXPERTS}",
    ),
    "glm4_moe": (
        f"input_layernorm -> {ATTENTION}",
        f"post_attention_layernorm -> {MLP}",
        f"post_attention_layernorm -> {EXPERTS} mlp.gate {SHARED}",
    ),
    "cohere2_moe": (f"input_layernorm -> {ATTENTION} mlp.gate {EXPERTS} {SHARED}",),
    "gemma4_text": (
        f"input_layernorm -> {ATTENTION}",
        "input_layernorm -> self_attn.q_proj",  # layers that take keys and values from others
        f"pre_feedforward_layernorm -> {MLP}",
        "pre_feedforward_layernorm_2 -> experts.*.gate_proj experts.*.up_proj",
    ),
    "llama4_text": (
        f"input_layernorm -> {ATTENTION}",
        "post_attention_layernorm -> feed_forward.gate_proj feed_forward.up_proj",
        "post_attention_layernorm -> feed_forward.experts.*.gate_proj "
        "feed_forward.experts.*.up_proj feed_forward.router feed_forward.shared_expert.gate_proj "
        "feed_forward.shared_expert.up_proj",
    ),
    # hybrids
    "qwen3_5_text": (
        f"1+input_layernorm -> {ATTENTION}",
        "1+input_layernorm -> linear_attn.in_proj_qkv linear_attn.in_proj_z "
        "linear_attn.in_proj_b linear_attn.in_proj_a",
        "linear_attn.norm -> linear_attn.out_proj",
        f"1+post_attention_layernorm -> {MLP}",
    ),
    "qwen3_next": (
        f"1+input_layernorm -> {ATTENTION}",
        "1+input_layernorm -> linear_attn.in_proj_qkvz linear_attn.in_proj_ba",
        "linear_attn.norm -> linear_attn.out_proj",
        f"1+post_attention_layernorm -> mlp.gate {EXPERTS} {ONE_SHARED}",
    ),
    "nemotron_h": (
        "norm -> mixer.in_proj",
        "mixer.norm -> mixer.out_proj",
        "norm -> mixer.q_proj mixer.k_proj mixer.v_proj",
        "norm -> mixer.experts.*.up_proj mixer.gate mixer.shared_experts.up_proj",
        "norm -> mixer.up_proj",
    ),
    "lfm2": (
        "operator_norm -> conv.in_proj",
        "operator_norm -> self_attn.q_proj self_attn.k_proj self_attn.v_proj",
        "ffn_norm -> feed_forward.w1 feed_forward.w3",
    ),
}
"""Relative names in a layer; `1+` for norms that multiply by 1 + weight; experts are `*`."""
