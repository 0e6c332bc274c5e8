"""The limit of learned positions is that at which transformers' own forward ends."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from stages.model.blueprint import Blueprint
from stages.model.traits.learned_positions import learned_positions, length_problem

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}
MODELS: dict[str, dict[str, Any]] = {
    "gpt2": {"max_position_embeddings": 12},
    "gpt_neo": {"attention_types": [[["global"], 1]], "max_position_embeddings": 12},
    "gpt_bigcode": {"max_position_embeddings": 12},
    "opt": {"max_position_embeddings": 12, "ffn_dim": 16, "word_embed_proj_dim": 16},
    "biogpt": {"max_position_embeddings": 12, "intermediate_size": 16},
    "openai-gpt": {"n_positions": 12},
    "roberta": {"max_position_embeddings": 12, "intermediate_size": 16, "is_decoder": True},
    "camembert": {"max_position_embeddings": 12, "intermediate_size": 16, "is_decoder": True},
}


def blueprint_like(model: Any, model_type: str) -> Blueprint:
    """What of a blueprint counts here, with the tensors of any model."""
    names = {name: name for name in model.state_dict()}
    return Blueprint(
        config=model.config.to_dict(),
        architecture=type(model).__name__,
        model_type=model_type,
        dtype="float32",
        experts="all",
        tied=False,
        vocab_size=20,
        hidden_size=16,
        decoder=next(n for n, m in model.named_modules() if m is model.base_model),
        embedding="",
        head="",
        layers=(),
        outside=names,
        outside_shapes={name: tuple(t.shape) for name, t in model.state_dict().items()},
    )


@pytest.mark.parametrize("family", MODELS)
def test_the_limit_is_where_the_model_ends(family: str) -> None:
    sizes = {**SIZES, "pad_token_id": 1, **MODELS[family]}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**sizes)).eval()
    limit = learned_positions(blueprint_like(model, family))
    assert limit is not None
    model(torch.full((1, limit), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, limit + 1), 5))
    assert limit == (10 if family in ("roberta", "camembert") else 12)


def test_rotary_positions_have_no_limit() -> None:
    config = CONFIG_MAPPING["llama"](**SIZES, intermediate_size=16, max_position_embeddings=4)
    model = AutoModelForCausalLM.from_config(config)
    blueprint = blueprint_like(model, "llama")
    assert learned_positions(blueprint) is None
    assert length_problem(blueprint, {"sequence_length": 4096}, "dataset.sequence_length") is None
