"""A model family as data: what makes a config of transformers tiny, with its features on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = Mapping[str, Any]

TEXT: Settings = {
    **{"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 256, "eos_token_id": 257},
    **{"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    **{"max_position_embeddings": 256, "sliding_window": 16},
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "moe_num_experts": 4},
    **{"num_experts_per_tok": 2, "num_experts_per_token": 2, "moe_k": 2, "moe_topk": 2},
    **{"n_shared_experts": 1, "num_shared_experts": 1, "n_group": 1, "topk_group": 1},
    **{"moe_intermediate_size": 96, "shared_expert_intermediate_size": 32},
    **{"shared_intermediate_size": 32, "first_k_dense_replace": 1},
    **{"kv_lora_rank": 32, "q_lora_rank": 32, "qk_nope_head_dim": 16, "v_head_dim": 16},
    **{"qk_rope_head_dim": 8, "index_topk": 16, "index_head_dim": 16, "index_n_heads": 4},
    **{"mamba_d_state": 16, "mamba_d_head": 16, "mamba_n_heads": 8, "mamba_chunk_size": 16},
    **{"mamba_d_conv": 4, "mamba_expand": 2, "mamba_d_ssm": 128},
    **{"linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"linear_key_head_dim": 16, "linear_value_head_dim": 16},
}
"""Values for the fields of that name that a text config has, unless the case says otherwise."""

TOWER: Settings = {
    **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "depth": 2},
    **{"num_attention_heads": 2, "num_heads": 2, "num_key_value_heads": 2, "head_dim": 16},
    **{"image_size": 28, "patch_size": 14, "embed_dim": 32, "projection_dim": 32},
    **{"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 64},
    **{"num_mel_bins": 16, "max_source_positions": 32, "n_window": 8, "output_dim": 64},
    **{"downsample_hidden_size": 32, "num_position_embeddings": 16, "out_hidden_size": 64},
    **{"vision_output_dim": 64},
}
"""The same for towers (vision, audio), whose output has the text model's width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """`model_type` as transformers registers it; settings of its config; nested ones by name.

    `cls` is the class that is built, where it is not what AutoModelForCausalLM builds.
    """

    name: str
    model_type: str
    cls: str | None
    settings: Settings = field(default_factory=dict)


def case(name: str, *, model_type: str | None = None, cls: str | None = None, **own: Any) -> Case:
    """A case called `name`, which is the model_type as well unless one is given."""
    return Case(name=name, model_type=model_type or name, cls=cls, settings=own)
