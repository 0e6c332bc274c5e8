"""The blueprint says what is on disk: names, shapes, ties, fused groups; or why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, JetMoeConfig

from pipeline.errors import UserError
from stages.model import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from tests.stages.model.tiny import FAMILIES, Spec, tiny


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_on_disk_has_its_place(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    blueprint = model.blueprint()
    named = [name for layer in blueprint.layers for name in layer.tensors.values()]
    everything = {*named, *blueprint.outside.values(), *blueprint.carried}
    assert everything == set(model.source.tensors)
    assert blueprint.carried == ()
    assert len(named) == len(set(named))
    assert sum(x.parameters for x in blueprint.layers) == sum(
        model.source.tensors[name].numel() for name in named
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_config_alone_gives_the_same_blueprint(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    assert blueprint_of(model.config) == model.blueprint()


@pytest.mark.parametrize("family", ["llama", "mixtral"])
def test_json_round_trip(family: str, tmp_path: Path) -> None:
    blueprint = tiny(family, tmp_path).blueprint()
    assert Blueprint.from_json(json.loads(json.dumps(blueprint.to_json()))) == blueprint


def test_json_of_another_version_is_refused(tmp_path: Path) -> None:
    data = tiny("llama", tmp_path).blueprint().to_json()
    del data["decoder"]
    with pytest.raises(UserError, match="not a blueprint"):
        Blueprint.from_json(data)


def test_experts_keep_their_names_on_disk(tmp_path: Path) -> None:
    layer = tiny("mixtral", tmp_path).blueprint().layers[1]
    prefixes = {linear.name: linear.prefix for linear in layer.linears if linear.expert}
    for own, disk in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
        assert prefixes[f"model.layers.1.mlp.experts.2.{own}"] == (
            f"model.layers.1.block_sparse_moe.experts.2.{disk}"
        )
    assert ("model.layers.1.mlp.experts.3.gate_proj", "model.layers.1.mlp.experts.3.up_proj") in (
        layer.fused
    )
    assert layer.tensors["model.layers.1.mlp.gate.weight"].endswith("block_sparse_moe.gate.weight")


def test_a_tied_head_is_the_embeddings_tensor(tmp_path: Path) -> None:
    blueprint = tiny("qwen3", tmp_path, tie_word_embeddings=True).blueprint()
    assert blueprint.tied
    assert blueprint.outside["lm_head.weight"] == "model.embed_tokens.weight"
    assert [linear.name for linear in blueprint.outside_linears] == ["lm_head"]


def test_tensors_that_no_parameter_claims_are_carried(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path)
    specs = {**model.source.specs(), "mtp.0.weight": Spec(name="mtp.0.weight", shape=(2,))}
    blueprint = blueprint_of(model.config, specs=specs)
    assert blueprint.carried == ("mtp.0.weight",)


def test_missing_and_misshapen_tensors_are_named(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path)
    specs = model.source.specs()
    del specs["model.layers.2.mlp.up_proj.weight"]
    specs["model.norm.weight"] = Spec(name="model.norm.weight", shape=(7,))
    with pytest.raises(UserError, match=r"layers\.2\.mlp\.up_proj.*model\.norm\.weight is \[7\]"):
        blueprint_of(model.config, specs=specs)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    model = tiny("mixtral", tmp_path)
    specs = model.source.specs()
    del specs["model.layers.0.block_sparse_moe.experts.3.w2.weight"]
    with pytest.raises(UserError, match=r"no tensor for .*experts\.3\.down_proj"):
        blueprint_of(model.config, specs=specs)


def test_experts_of_an_unknown_protocol_are_refused_by_class() -> None:
    config = JetMoeConfig(
        num_hidden_layers=2,
        hidden_size=64,
        intermediate_size=64,
        num_local_experts=4,
        num_key_value_heads=2,
        kv_channels=16,
        vocab_size=64,
    )
    with pytest.raises(UserError, match="JetMoeParallelExperts"):
        blueprint_of(json.loads(config.to_json_string()))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "lama"}, "did you mean llama"),
        ({}, "model_type"),
        ({"model_type": "vit"}, "no causal language model"),
        ({"model_type": "llama", "hidden_size": "big"}, "not a valid llama config"),
    ],
)
def test_bad_configs_are_one_clear_error(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        blueprint_of(config)


def test_a_multimodal_models_text_layers_are_found() -> None:
    config = AutoConfig.for_model(
        "gemma3",
        text_config={
            "num_hidden_layers": 2,
            "hidden_size": 64,
            "intermediate_size": 64,
            "head_dim": 16,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 64,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        },
    )
    config.dtype = torch.bfloat16
    blueprint = blueprint_of(json.loads(config.to_json_string()))
    assert blueprint.members == (
        "model.language_model.layers.0",
        "model.language_model.layers.1",
    )
    assert any("vision" in name for name in blueprint.outside)
