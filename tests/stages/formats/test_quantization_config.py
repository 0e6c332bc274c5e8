"""`quantization_config` says to loaders exactly what is in the files."""

from __future__ import annotations

import json

import pytest
from compressed_tensors.quantization import QuantizationConfig

from pipeline.errors import UserError
from stages.formats.compressed_tensors_bridge import parse, schemes_in
from stages.formats.quantization_config import quantization_config, scheme_of
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
    assert scheme_of("model.layers.1.mlp.down_proj", schemes_in(parsed)).format == "int-quantized"
    assert scheme_of("model.layers.1.mlp.up_proj", schemes_in(parsed)).format == "pack-quantized"


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
        weights = scheme_of(f"model.layers.0.mlp.{name}", schemes_in(parsed)).weights
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
        scheme_of("model.layers.0.mlp.up_proj", schemes_in(parsed))
