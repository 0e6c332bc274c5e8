"""Configs of tiny models with experts, one of each family that transformers has.

Sizes differ from each other, so that nothing fits by being square.
"""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 32}
N = {"num_experts": 4}
LOCAL = {"num_local_experts": 4}
ROUTED = {"n_routed_experts": 4}
SHARED = {
    **ROUTED,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
MLA = {
    "q_lora_rank": 32,
    "kv_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 4,
    "head_dim": 16,
}
INDEX = {"index_n_heads": 4, "index_head_dim": 32, "index_topk": 64}
VISION = {
    "depth": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_heads": 2,
    "out_hidden_size": 64,
    "patch_size": 4,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}

EXPERTS: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**MOE, **N, "shared_expert_intermediate_size": 48, "decoder_sparse_step": 1},
    "qwen3_moe": {**MOE, **N, "mlp_only_layers": [], "decoder_sparse_step": 1},
    "qwen3_next": {
        **MOE,
        **N,
        "shared_expert_intermediate_size": 48,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "qwen3_vl_moe": {
        "text_config": {**BASE, **MOE, **N, "rope_parameters": MROPE},
        "vision_config": VISION,
    },
    "mixtral": {**LOCAL, "num_experts_per_tok": 2},
    "olmoe": {**N, "num_experts_per_tok": 2},
    "phimoe": {**LOCAL, "num_experts_per_tok": 2},
    "minimax_m2": {**LOCAL, "num_experts_per_tok": 2, "rotary_dim": 16},
    "gpt_oss": {**LOCAL, "num_experts_per_tok": 2, "sliding_window": 8},
    "deepseek_v3": {**MOE, **SHARED, **MLA},
    "deepseek_v32": {**MOE, **SHARED, **MLA, **INDEX},
    "glm4_moe": {**MOE, **SHARED},
    "glm4_moe_lite": {**MOE, **SHARED, **MLA},
    "llama4_text": {
        **LOCAL,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 48,
        "attention_chunk_size": 8,
        "interleave_moe_layer_step": 1,
    },
    "gemma4_text": {
        **N,
        "enable_moe_block": True,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
        "sliding_window": 8,
        "hidden_size_per_layer_input": 0,
        "global_head_dim": 16,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "dbrx": {
        **{"d_model": 64, "n_heads": 4, "n_layers": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
        "ffn_config": {
            **{"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
        },
    },
    "aria_text": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1},
    "granitemoe": {**LOCAL, "num_experts_per_tok": 2},
    "granitemoehybrid": {
        **LOCAL,
        "num_experts_per_tok": 2,
        "shared_intermediate_size": 48,
        "layer_types": ["mamba", "attention"],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "mamba_chunk_size": 8,
    },
    "afmoe": {
        **MOE,
        **N,
        "num_dense_layers": 1,
        "num_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "sliding_window": 8,
    },
    "cohere2_moe": {**MOE, **N, "sliding_window": 8},
    "ernie4_5_moe": {
        **MOE,
        "moe_num_experts": 4,
        "moe_k": 2,
        "moe_num_shared_experts": 1,
        "moe_layer_start_index": 1,
    },
    "lfm2_moe": {
        **MOE,
        **N,
        "num_dense_layers": 1,
        "layer_types": ["conv", "full_attention"],
    },
    "nemotron_h": {
        **MOE,
        **ROUTED,
        "n_shared_experts": 1,
        "n_group": 1,
        "topk_group": 1,
        "moe_shared_expert_intermediate_size": 48,
        "layers_block_type": ["moe", "attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "ssm_state_size": 16,
        "chunk_size": 8,
    },
    "mistral3": {
        "text_config": {**BASE, **MOE, **SHARED, **MLA, "head_dim": 32, "model_type": "mistral4"},
        "vision_config": {
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "head_dim": 16,
            "patch_size": 4,
            "image_size": 16,
        },
    },
    "jamba": {
        **N,
        "num_experts_per_tok": 2,
        "expert_layer_period": 1,
        "expert_layer_offset": 0,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
    },
}
"""Families whose layers have experts, by model_type; each with what BASE does not say."""
