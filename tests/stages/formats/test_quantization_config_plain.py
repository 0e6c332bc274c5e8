"""Formats in config.json are what compressed-tensors says of them, and read back."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version

import compressed_tensors
import pytest
from compressed_tensors.quantization import QuantizationConfig
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.formats.compressed_tensors_bridge import to_args, to_compressed_tensors
from stages.formats.quantization_config import (
    QuantizedStates,
    args_to_config,
    group_to_config,
    groups_from_config,
    quantization_config,
)
from stages.schemes.layouts import layout_of
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeGroup
from tests.stages.formats.fakes import blueprint
from tests.stages.formats.library_dump import dump_args, dump_config, dump_scheme
from tests.stages.schemes.presets import QUANTIZED, load

ADDED = {"version", "sparsity_config", "transform_config"}
integers = st.builds(
    QArgs,
    num_bits=st.integers(2, 8),
    symmetric=st.booleans(),
    strategy=st.just("group"),
    group_size=st.integers(1, 512),
    zp_dtype=st.sampled_from([None, "int8"]),
)
inputs = st.builds(
    QArgs,
    type=st.sampled_from(["int", "float"]),
    observer=st.just("mse"),
    observer_kwargs=st.fixed_dictionaries({}, optional={"norm": st.floats(1, 4)}),
)
microscaled = st.sampled_from(
    [
        QArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype="uint8"),
        QArgs(num_bits=8, type="float", strategy="block", block_structure=[128, 64]),
        QArgs(
            num_bits=4,
            type="float",
            strategy="tensor_group",
            group_size=16,
            scale_dtype="float8_e4m3fn",
            dynamic="local",
        ),
        QArgs(strategy="token", dynamic=True, symmetric=False),
    ]
)


@settings(max_examples=200, deadline=None, database=None)
@given(args=st.one_of(integers, inputs, microscaled))
def test_an_args_is_said_as_compressed_tensors_says_it(args: QArgs) -> None:
    theirs = dump_args(to_args(args))
    assert json.dumps(args_to_config(args)) == json.dumps(theirs)


@pytest.mark.parametrize("name", [*QUANTIZED, "mixed"])
def test_the_config_of_a_scheme_is_said_as_compressed_tensors_says_it(name: str) -> None:
    model = blueprint(layers=2, experts=2)
    resolved = resolve(load(name), model).modules
    config = quantization_config(resolved, model)
    again = dump_config(QuantizationConfig.model_validate(config))
    assert {key: value for key, value in config.items() if key not in ADDED} == again
    assert list(again) == [key for key in config if key not in ADDED]
    groups = {found.group: found.scheme for found in resolved.values()}
    for mine, scheme in zip(config["config_groups"].values(), groups.values(), strict=True):
        theirs = dump_scheme(to_compressed_tensors(scheme))
        assert json.dumps(mine | {"targets": []}) == json.dumps(theirs | {"targets": []})


def test_attention_states_are_said_as_compressed_tensors_says_them() -> None:
    fp8, model = QArgs(type="float"), blueprint()
    states = QuantizedStates(kv_cache=fp8, attention=fp8, kinds=("LlamaAttention",))
    config = quantization_config({}, model, states)
    again = dump_config(QuantizationConfig.model_validate(config))
    assert {key: value for key, value in config.items() if key not in ADDED} == again
    assert config["kv_cache_scheme"] == dump_args(to_args(fp8))
    assert config["config_groups"]["group_0"]["targets"] == ["LlamaAttention"]


def test_the_version_is_that_of_the_installed_compressed_tensors() -> None:
    assert quantization_config({}, blueprint())["version"] == compressed_tensors.__version__
    assert version("compressed-tensors") == compressed_tensors.__version__


@pytest.mark.parametrize("name", [*QUANTIZED, "mixed"])
def test_what_is_said_reads_back(name: str) -> None:
    groups = [group for _, group in load(name).ordered()]
    said = [
        group_to_config(g.weights, g.input_activations, layout_of(g), g.targets) for g in groups
    ]
    config = json.loads(json.dumps({"config_groups": dict(enumerate(said))}))
    for found, group in zip(groups_from_config(config), groups, strict=True):
        layout = layout_of(group)
        assert json.dumps(_said(found)) == json.dumps(_said(group) | {"format": layout})
        assert found.targets == group.targets


def _said(group: SchemeGroup) -> dict[str, object]:
    return group_to_config(group.weights, group.input_activations, group.format, group.targets)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config_groups": None},
        {"config_groups": {"g": ["Linear"]}},
        {"config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": "x"}}}},
    ],
)
def test_what_is_no_config_of_ours_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(UserError, match="not a valid one"):
        groups_from_config(config)


def test_a_field_that_is_unknown_is_refused() -> None:
    said = group_to_config(QArgs(), None, "pack-quantized", ["Linear"])
    said["weights"]["bits"] = 3
    with pytest.raises(UserError, match="not a valid one"):
        groups_from_config({"config_groups": {"g": said}})


def test_every_field_is_said() -> None:
    names = {field.name for field in dataclasses.fields(QArgs)}
    choosing = {"scale_rule"}  # how scales are found: readers of a checkpoint need not know
    assert set(args_to_config(QArgs())) == names - choosing | {"actorder"}
