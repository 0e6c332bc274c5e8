"""Shrunken instances: every kind of layer is kept, every parameter is random, and they run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from pipeline.errors import UserError
from stages.model.meta_model import config_of
from stages.model.shrunken import Shrunken, shrunken
from stages.model.shrunken.config_fields import Kind, kind_of
from stages.model.shrunken.instance import LENGTH, ROWS

LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008],
}
GEMMA4: dict[str, Any] = {
    "model_type": "gemma4_text",
    "num_hidden_layers": 35,
    "num_kv_shared_layers": 20,
    "layer_types": (["sliding_attention"] * 4 + ["full_attention"]) * 7,
}
TYPES = (
    *("llama", "qwen2", "gemma2", "phi3", "cohere2", "falcon", "bloom", "opt", "gpt2", "mpt"),
    *("qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3", "afmoe", "llama4_text", "minimax_m2"),
    *("mamba2", "falcon_h1", "nemotron_h", "lfm2", "gemma4_text"),
)
WHOLE = ("gemma3", "llava", "qwen2_vl")
"""Models with towers, of which the text model runs."""


def small(model_type: str, **changes: Any) -> Shrunken:
    return shrunken({**CONFIG_MAPPING[model_type]().to_dict(), **changes, "model_type": model_type})


def layers_of(found: Shrunken) -> Any:
    return config_of(found.config).get_text_config(decoder=True)


@pytest.mark.parametrize("model_type", [*TYPES, *WHOLE])
def test_a_small_model_of_every_class_runs(model_type: str) -> None:
    found = small(model_type)
    parameters = sum(p.numel() for p in found.model.parameters())
    assert parameters < 6_000_000
    assert found.input_ids.shape == (ROWS, LENGTH)
    with torch.no_grad():
        logits = found.model(input_ids=found.input_ids, use_cache=False).logits
    assert logits.isfinite().all()
    assert logits.std() > 0
    constant = [
        name
        for name, tensor in found.model.state_dict().items()
        if tensor.numel() > 1 and tensor.is_floating_point() and tensor.unique().numel() == 1
    ]
    assert not constant


def test_coupled_fields_of_a_dense_model_stay_consistent() -> None:
    found = shrunken(LLAMA)
    config = layers_of(found)
    assert (config.num_attention_heads, config.num_key_value_heads) == (4, 2)
    assert config.head_dim == 16
    assert config.hidden_size == 64
    assert config.intermediate_size not in (0, 64)
    assert config.vocab_size == 128
    assert all(0 <= token < 128 for token in (config.bos_token_id, *config.eos_token_id))
    assert (found.layers, found.of) == (3, 32)


def test_a_head_dimension_apart_from_the_hidden_size_stays_apart() -> None:
    config = layers_of(small("qwen3", hidden_size=1024, num_attention_heads=16, head_dim=128))
    assert config.num_attention_heads * config.head_dim != config.hidden_size


def test_every_kind_of_layer_is_kept_next_to_the_same_kinds() -> None:
    found = shrunken(GEMMA4)
    config = layers_of(found)
    first_shared = config.num_hidden_layers - config.num_kv_shared_layers
    types = config.layer_types
    assert 0 < config.num_kv_shared_layers < config.num_hidden_layers < 35
    assert set(types[:first_shared]) == set(types[first_shared:]) == set(GEMMA4["layer_types"])
    assert (types[first_shared - 1], types[first_shared]) == ("full_attention", "sliding_attention")


def test_transitions_from_dense_to_sparse_layers_are_kept() -> None:
    found = small("deepseek_v3")
    kinds = [type(layer.mlp).__name__ for layer in found.model.model.layers]
    assert kinds == ["DeepseekV3MLP"] * 2 + ["DeepseekV3MoE"] * 2
    config = layers_of(found)
    assert config.qk_head_dim == config.qk_nope_head_dim + config.qk_rope_head_dim
    assert len({config.q_lora_rank, config.kv_lora_rank, config.hidden_size}) == 3
    assert config.topk_group < config.n_group < config.n_routed_experts


def test_sequences_are_longer_than_windows_chunks_and_top_k() -> None:
    for model_type in ("gemma3_text", "llama4_text", "qwen2"):
        config = layers_of(small(model_type, sliding_window=4096))
        numbers = {n: v for n, v in config.to_dict().items() if type(v) is int}
        assert all(v < LENGTH for n, v in numbers.items() if kind_of(n) is Kind.WINDOW), numbers


def test_one_seed_gives_one_model_and_another_another() -> None:
    first, same, other = (shrunken(LLAMA, seed=seed) for seed in (0, 0, 1))
    key = "model.layers.1.self_attn.q_proj.weight"
    weights = [found.model.state_dict()[key] for found in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_double_precision_has_the_same_weights() -> None:
    wide, narrow = shrunken(LLAMA, dtype="float64"), shrunken(LLAMA)
    for name, tensor in wide.model.state_dict().items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor.float(), narrow.model.state_dict()[name])
    with torch.no_grad():
        logits = wide.model(input_ids=wide.input_ids, use_cache=False).logits
    assert logits.dtype == torch.float64


def test_tied_parameters_stay_one_tensor() -> None:
    model = small("qwen3", tie_word_embeddings=True).model
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_words_that_are_as_long_as_the_model_is_deep_are_no_pattern() -> None:
    found = shrunken({**LLAMA, "num_hidden_layers": 4, "hidden_act": "silu"})
    assert (found.layers, found.config["hidden_act"]) == (3, "silu")


def test_what_cannot_be_shrunk_is_one_clear_error() -> None:
    with pytest.raises(UserError, match="no small blip model") as raised:
        small("blip")  # its text model does not run without an image
    assert raised.value.remedy
