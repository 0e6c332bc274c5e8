"""Tiny random models of many families, as folders that transformers itself has saved."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from stages.model import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.model.pairs.prove_pairs import prove_pairs
from stages.model.pairs.proven import ProvenPairs
from stages.model.shrunken import shrunken
from stages.model.skeleton import Skeleton, skeleton

COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
WINDOW = {"sliding_window": 8}
TYPES = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"use_sliding_window": True, "max_window_layers": 2, **WINDOW},
    "qwen3": {"tie_word_embeddings": True},
    "mistral": WINDOW,
    "gemma2": {**WINDOW, "layer_types": TYPES, "query_pre_attn_scalar": 16},
    "gemma3_text": {**WINDOW, "layer_types": TYPES, "query_pre_attn_scalar": 16},
    "phi3": {"sliding_window": None},
    "qwen3_moe": {**MOE, "mlp_only_layers": [1], "decoder_sparse_step": 1},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 48, "decoder_sparse_step": 1},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "granite": {"logits_scaling": 2.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "cohere2": {**WINDOW, "layer_types": TYPES, "logit_scale": 0.5},
    "olmo2": {},
    "glm4": {},
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "exaone4": {**WINDOW, "layer_types": TYPES},
    "gpt2": {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 128},
    "falcon_h1": {
        "mamba_d_ssm": 64,
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_d_state": 16,
        "mamba_chunk_size": 16,
    },
    "gemma4_text": {
        **WINDOW,
        "layer_types": TYPES,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 96,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 32,
    },
    "gemma3n_text": {
        **WINDOW,
        "intermediate_size": [96] * 4,
        "layer_types": TYPES,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 96,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
        "activation_sparsity_pattern": [0.9, 0.0, 0.0, 0.0],
    },
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 96},
    "bloom": {"n_layer": 4, "n_head": 4},
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 32, "do_layer_norm_before": False},
}


TIED_LAYERS: dict[str, dict[str, Any]] = {
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "attention_head_dim": 32,
        "mamba_d_state": 16,
        "mamba_headdim": 16,
        "chunk_size": 16,
        "adapter_rank": 8,
    },
}
"""Families in which layers share modules."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spec:
    """What a weight source says about a tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "F32"


class Folder:
    """A weight source over the one safetensors file of a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tensors: dict[str, Tensor] = load_file(path / "model.safetensors")

    def specs(self) -> dict[str, Spec]:
        return {n: Spec(name=n, shape=tuple(t.shape)) for n, t in self.tensors.items()}

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        return {name: self.tensors[name].clone().to(device) for name in names}


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiny:
    """A tiny model: the folder, and presswork's view of it."""

    path: Path
    source: Folder
    config: dict[str, Any]

    def original(self) -> PreTrainedModel:
        """The whole model as transformers loads it."""
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            self.path, experts_implementation="eager"
        )
        return model.eval()

    def blueprint(self, *, experts: str = "all") -> Blueprint:
        specs = self.source.specs()
        return blueprint_of(self.config, experts=experts, specs=specs)

    def skeleton(self, *, experts: str = "all") -> Skeleton:
        return skeleton(self.blueprint(experts=experts))

    def pairs(self) -> ProvenPairs:
        """The smoothing pairs, proven on a shrunken instance."""
        return proven(json.dumps(self.config))


@cache
def proven(config: str) -> ProvenPairs:
    """The smoothing pairs of a model's config.json, proven once however many tests ask."""
    parsed = json.loads(config)
    return prove_pairs(parsed, shrunken(parsed))


def tiny(family: str, folder: Path, *, dtype: torch.dtype = torch.float32, **changes: Any) -> Tiny:
    """Save a tiny random model of a family (a key of FAMILIES or TIED_LAYERS) into `folder`."""
    config_class = transformers.CONFIG_MAPPING[family]
    settings = {
        name: value
        for name, value in {**COMMON, **(FAMILIES | TIED_LAYERS)[family], **changes}.items()
        if not isinstance(getattr(config_class, name, None), property)
    }
    config = config_class(**settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    return Tiny(
        path=folder,
        source=Folder(folder),
        config=json.loads((folder / "config.json").read_text()),
    )
