"""Tiny models whose weights follow from integer arithmetic alone, whatever torch is installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.benchmarks.random_llama import write_tokenizer

LAYERS, HIDDEN, WIDE, HEADS, KV, VOCAB, EXPERTS, EXPERT_WIDE = 2, 256, 384, 4, 2, 320, 4, 128
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": HIDDEN // HEADS,
    "max_position_embeddings": 512,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "tie_word_embeddings": False,
}


class Draws:
    """Numbers like a normal distribution's with a few wide channels, from a counted bit stream."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.PCG64(seed)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """float32 [rows, columns]: multiples of 2**-17 around 0, each column with its own width."""
        count = rows * columns
        halves = self._bits.random_raw(2 * count).view(np.uint16).reshape(count, 8)
        sums = halves.astype(np.int64).sum(axis=1) - 4 * 65535  # eight dice: close to normal
        wide = 1 << (self._bits.random_raw(columns) % 16 == 0).astype(np.int64)
        values = (sums.reshape(rows, columns) * wide) >> 3
        return torch.from_numpy(values.astype(np.float32) * np.float32(2.0**-17))


def _attention(draws: Draws, prefix: str) -> dict[str, Tensor]:
    kv = KV * HIDDEN // HEADS
    sizes = {"q_proj": HIDDEN, "k_proj": kv, "v_proj": kv, "o_proj": HIDDEN}
    return {
        f"{prefix}.self_attn.{name}.weight": draws.matrix(rows, HIDDEN)
        for name, rows in sizes.items()
    }


def _mlp(draws: Draws, prefix: str, wide: int) -> dict[str, Tensor]:
    sizes = {"gate_proj": (wide, HIDDEN), "up_proj": (wide, HIDDEN), "down_proj": (HIDDEN, wide)}
    return {f"{prefix}.{name}.weight": draws.matrix(*size) for name, size in sizes.items()}


def llama(draws: Draws) -> dict[str, Tensor]:
    """All tensors of a dense llama."""
    tensors = _outside(draws)
    for k in range(LAYERS):
        prefix = f"model.layers.{k}"
        tensors |= _attention(draws, prefix) | _mlp(draws, f"{prefix}.mlp", WIDE)
        tensors |= _norms(prefix)
    return tensors


def qwen3_moe(draws: Draws) -> dict[str, Tensor]:
    """All tensors of a Qwen3 with experts, as its checkpoints name them."""
    tensors = _outside(draws)
    for k in range(LAYERS):
        prefix = f"model.layers.{k}"
        tensors |= _attention(draws, prefix) | _norms(prefix)
        for norm in ("q_norm", "k_norm"):
            tensors[f"{prefix}.self_attn.{norm}.weight"] = torch.ones(HIDDEN // HEADS)
        tensors[f"{prefix}.mlp.gate.weight"] = draws.matrix(EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            tensors |= _mlp(draws, f"{prefix}.mlp.experts.{expert}", EXPERT_WIDE)
    return tensors


def _outside(draws: Draws) -> dict[str, Tensor]:
    return {
        "model.embed_tokens.weight": draws.matrix(VOCAB, HIDDEN),
        "model.norm.weight": torch.ones(HIDDEN),
        "lm_head.weight": draws.matrix(VOCAB, HIDDEN),
    }


def _norms(prefix: str) -> dict[str, Tensor]:
    names = ("input_layernorm", "post_attention_layernorm")
    return {f"{prefix}.{name}.weight": torch.ones(HIDDEN) for name in names}


FAMILIES: Mapping[str, tuple[str, Callable[[Draws], dict[str, Tensor]], dict[str, Any]]] = {
    "llama": ("LlamaConfig", llama, {}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        qwen3_moe,
        {
            "num_experts": EXPERTS,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": EXPERT_WIDE,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        },
    ),
}


def write_model(folder: Path, family: str, dtype: torch.dtype = torch.bfloat16) -> Path:
    """Write a model of `family` (a key of FAMILIES) as a transformers folder; returns `folder`."""
    import transformers

    name, make, more = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    config = getattr(transformers, name)(**{**COMMON, **more}, dtype=str(dtype)[6:])
    config.architectures = [name.replace("Config", "ForCausalLM")]
    config.save_pretrained(folder)
    tensors = {name: tensor.to(dtype) for name, tensor in make(Draws(7)).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder
