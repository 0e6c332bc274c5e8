"""State-space models, linear attention, and hybrids of them with attention."""

from __future__ import annotations

from tests.families.case import Case, case
from tests.families.dense import MLA

LINEAR = {
    "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"]
}

HYBRID: tuple[Case, ...] = (
    case("qwen3_next", **LINEAR, decoder_sparse_step=1),
    case("qwen3_5_text", **LINEAR),
    case("qwen3_5_moe_text", **LINEAR),
    case(
        "granitemoehybrid", layer_types=["linear_attention", "full_attention"] * 2, mamba_n_groups=1
    ),
    case("bamba", attn_layer_indices=[1, 3], mamba_n_groups=1),
    case("jamba", attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2),
    case(
        "zamba2",
        layer_types=["linear_attention", "hybrid"] * 2,
        mamba_ngroups=1,
        n_mamba_heads=8,
        mamba_headdim=16,
        hybrid_layer_ids=[1, 3],
        num_mem_blocks=1,
        adapter_rank=32,
        chunk_size=16,
        attention_head_dim=32,
        num_key_value_heads=4,
    ),
    case(
        "zamba",
        layer_types=["linear_attention", "hybrid"] * 2,
        n_mamba_heads=2,
        mamba_dt_rank=4,
        attention_head_dim=32,
    ),
    case(
        "nemotron_h",
        layer_types=["linear_attention", "moe", "full_attention", "mlp"],
        mamba_num_heads=8,
        mamba_head_dim=16,
        ssm_state_size=16,
        n_groups=1,
        chunk_size=16,
        moe_shared_expert_intermediate_size=32,
    ),
    case("falcon_h1"),
    case("falcon_mamba", state_size=16),
    case("mamba", state_size=16),
    case("mamba2", num_heads=8, head_dim=16, state_size=16, n_groups=1, chunk_size=16),
    case("lfm2", layer_types=["conv", "full_attention", "conv", "full_attention"], block_ff_dim=96),
    case(
        "lfm2_moe",
        layer_types=["conv", "full_attention", "conv", "full_attention"],
        num_dense_layers=1,
    ),
    case(
        "olmo_hybrid",
        **LINEAR,
        linear_num_key_heads=4,
        linear_num_value_heads=4,
    ),
    case("recurrent_gemma", attention_window_size=16, lru_width=64, intermediate_size=128),
    case("minimax", layer_types=["linear_attention", "full_attention"] * 2, block_size=16),
    case("kimi_linear", **LINEAR, **MLA, linear_num_heads=4, linear_head_dim=32),
)
