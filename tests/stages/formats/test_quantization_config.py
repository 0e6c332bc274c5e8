"""`quantization_config` says to loaders exactly what is in the files."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from compressed_tensors.quantization import QuantizationConfig

from pipeline.errors import UserError
from stages.formats.compressed_tensors_bridge import parse, schemes_in
from stages.formats.quantization_config import Schemes, quantization_config
from stages.model.blueprint import Blueprint, LinearSpec
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from tests.stages.formats.fakes import blueprint
from tests.stages.formats.library_dump import dump_config
from tests.stages.schemes.presets import load

W4 = QArgs(num_bits=4, strategy="group", group_size=32)
W8 = QArgs(strategy="channel")


def test_it_has_the_fields_that_loaders_read_and_is_plain_json() -> None:
    model = blueprint()
    config = quantization_config(resolve(SchemeConfig(weights=W4), model).checked(), model)
    assert json.loads(json.dumps(config)) == config
    assert config["quant_method"] == "compressed-tensors"
    assert config["quantization_status"] == "compressed"
    assert config["format"] == "pack-quantized"
    assert config["ignore"] == ["lm_head"]
    assert (config["sparsity_config"], config["transform_config"]) == ({}, {})
    assert config["kv_cache_scheme"] is None
    (group,) = config["config_groups"].values()
    assert group["targets"] == ["Linear"]
    assert group["weights"]["group_size"] == 32


def test_every_dense_linear_and_router_is_ignored_by_name() -> None:
    model = blueprint(layers=2, experts=2)
    scheme = SchemeConfig(weights=W4, ignore=["lm_head", "model.layers.1.self_attn.q_proj"])
    config = quantization_config(resolve(scheme, model).checked(), model)
    assert set(config["ignore"]) == {
        "lm_head",
        "model.layers.1.self_attn.q_proj",
        "model.layers.0.mlp.gate",
        "model.layers.1.mlp.gate",
    }


def renamed(model: Blueprint) -> Blueprint:
    """The model with other names on disk than in the module tree, as LLaVA has them."""

    def on_disk(name: str) -> str:
        text = name.replace("model.", "language_model.model.", 1)
        return text if text != name else f"language_model.{name}"

    def moved(linears: tuple[LinearSpec, ...]) -> tuple[LinearSpec, ...]:
        return tuple(replace(linear, prefix=on_disk(linear.name)) for linear in linears)

    layers = tuple(
        replace(
            layer,
            linears=moved(layer.linears),
            tensors={name: on_disk(name) for name in layer.tensors},
        )
        for layer in model.layers
    )
    outside = {name: on_disk(name) for name in model.outside}
    linears = moved(model.outside_linears)
    return replace(model, layers=layers, outside=outside, outside_linears=linears)


def test_both_names_of_a_dense_linear_are_ignored() -> None:
    model = renamed(blueprint())
    scheme = SchemeConfig(weights=W4, ignore=["lm_head", "re:.*layers.0.*q_proj"])
    config = quantization_config(resolve(scheme, model).checked(), model)
    assert set(config["ignore"]) == {
        *("lm_head", "language_model.lm_head"),
        "model.layers.0.self_attn.q_proj",
        "language_model.model.layers.0.self_attn.q_proj",
    }
    (group,) = config["config_groups"].values()
    assert group["targets"] == ["Linear"]


def test_linears_that_transformers_makes_of_other_tensors_are_ignored() -> None:
    model = replace(blueprint(), converted=("model.vision_tower.attn.q_proj",))
    config = quantization_config(resolve(SchemeConfig(weights=W4), model).checked(), model)
    assert config["ignore"] == ["lm_head", "model.vision_tower.attn.q_proj"]


@pytest.mark.parametrize(
    "pattern", [r"re:language_model\.model\.layers.*down_proj$", r"re:model\.layers.*down_proj$"]
)
def test_a_target_that_one_reader_only_would_find_becomes_names_for_both(pattern: str) -> None:
    model = renamed(blueprint(layers=1))
    scheme = SchemeConfig(weights=W4, groups={"down": SchemeGroup(weights=W8, targets=[pattern])})
    config = quantization_config(resolve(scheme, model).checked(), model)
    groups = [group["targets"] for group in config["config_groups"].values()]
    (down,) = (targets for targets in groups if any("down_proj" in name for name in targets))
    assert down == [
        "language_model.model.layers.0.mlp.down_proj",
        "model.layers.0.mlp.down_proj",
    ]
    schemes = schemes_in(parse(config))
    for linear in model.linears():
        if linear.name != "lm_head":
            bits = 8 if "down_proj" in linear.name else 4
            for name in (linear.name, linear.prefix):
                weights = Schemes(schemes).of(name).weights
                assert weights is not None and weights.num_bits == bits


def test_a_pattern_that_also_finds_an_embedding_becomes_names() -> None:
    model = blueprint(layers=1)
    shapes = {**model.outside_shapes, "model.pos_embed.weight": (16, 64)}
    outside = {**model.outside, "model.pos_embed.weight": "model.pos_embed.weight"}
    wide = replace(model, outside=outside, outside_shapes=shapes)
    scheme = SchemeConfig(weights=W4, targets=["re:.*_proj$"])
    (narrow,) = _targets(scheme, wide)
    assert narrow == ["re:.*_proj$"]
    scheme = SchemeConfig(weights=W4, targets=["re:model"], ignore=["lm_head", "re:.*tokens"])
    (names,) = _targets(scheme, wide)
    assert names == [linear.name for linear in wide.layers[0].linears]
    assert _targets(scheme, model) == [names]  # the token embedding is dense, too


def _targets(scheme: SchemeConfig, model: Blueprint) -> list[list[str]]:
    config = quantization_config(resolve(scheme, model).checked(), model)
    return [group["targets"] for group in config["config_groups"].values()]


def test_an_outlined_model_is_named_as_its_base_model_would_have_it() -> None:
    tower = LinearSpec(name="vision.fc1", prefix="vision.fc1", in_features=64, out_features=64)
    head = LinearSpec(name="text.lm_head", prefix="text.lm_head", in_features=64, out_features=32)
    model = replace(
        blueprint(), outlined="no class", head="text.lm_head", outside_linears=(head, tower)
    )
    scheme = SchemeConfig(weights=W4, ignore=["re:.*lm_head", "re:.*layers.0.*q_proj"])
    config = quantization_config(resolve(scheme, model).checked(), model)
    assert set(config["ignore"]) == {
        *("text.lm_head", "lm_head", "vision.fc1", "model.vision.fc1"),
        "model.layers.0.self_attn.q_proj",
    }


def test_two_layouts_are_mixed_precision_with_a_format_each() -> None:
    model = blueprint()
    down = SchemeGroup(
        weights=W8,
        input_activations=QArgs(strategy="token", dynamic=True),
        targets=["re:.*down_proj$"],
    )
    scheme = SchemeConfig(weights=W4, groups={"down": down})
    config = quantization_config(resolve(scheme, model).checked(), model)
    assert config["format"] == "mixed-precision"
    parsed = parse(config)
    assert Schemes(schemes_in(parsed)).of("model.layers.1.mlp.down_proj").format == "int-quantized"
    assert Schemes(schemes_in(parsed)).of("model.layers.1.mlp.up_proj").format == "pack-quantized"


def test_an_order_that_loaders_would_read_differently_becomes_names() -> None:
    model = blueprint(layers=1)
    everything = SchemeGroup(weights=W4, targets=["Linear"])
    down = SchemeGroup(weights=W8, targets=["re:.*down_proj$"])  # never reached: "all" is first
    scheme = SchemeConfig(groups={"all": everything, "down": down})
    config = quantization_config(resolve(scheme, model).checked(), model)
    (group,) = config["config_groups"].values()
    assert group["targets"] == ["Linear"]

    named = SchemeGroup(weights=W4, targets=["re:.*mlp.*"])
    exact = SchemeGroup(weights=W8, targets=["model.layers.0.mlp.down_proj", "re:.*q_proj$"])
    scheme = SchemeConfig(groups={"mlp": named, "few": exact})
    config = quantization_config(resolve(scheme, model).checked(), model)
    parsed = parse(config)
    for name in ("down_proj", "up_proj"):
        weights = Schemes(schemes_in(parsed)).of(f"model.layers.0.mlp.{name}").weights
        assert weights is not None and weights.num_bits == 4


def test_nvfp4_dtypes_survive_the_way_through_json() -> None:
    model = blueprint()
    resolved = resolve(load("nvfp4"), model).checked()
    config = json.loads(json.dumps(quantization_config(resolved, model)))
    again = QuantizationConfig.model_validate(config)
    assert dump_config(again).items() <= config.items()


def test_a_config_of_something_else_is_refused() -> None:
    with pytest.raises(UserError, match="not a valid one"):
        parse({"config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": "x"}}}})


def test_a_module_that_no_group_covers_is_refused() -> None:
    parsed = parse({"config_groups": {"g": {"targets": ["re:.*q_proj"], "weights": {}}}})
    with pytest.raises(UserError, match="no group"):
        Schemes(schemes_in(parsed)).of("model.layers.0.mlp.up_proj")
