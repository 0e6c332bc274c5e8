"""Which layers are rounded straight from file to file: the same answer in the plan and the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.compress.layer.state import LayerState
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers.base import Modifier
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.rtn_route import RoundedWeight, goes_straight
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compress.rtn_streaming import is_straight
from stages.compress.stage import CompressConfig
from stages.model.layer_tensors import layer_tensors
from stages.schemes.resolve import resolve
from stages.weights.checkpoint_files import find_weights
from stages.weights.safetensors_source import SafetensorsSource
from tests.stages.compress.test_rtn_streaming import WIDE, surveyed
from tests.stages.model.tiny import tiny
from tests.stages.schemes.presets import load

_, W4A16 = next(load("w4a16").ordered())


@pytest.mark.parametrize(
    ("modifiers", "device", "straight"),
    [
        ((), "cpu", True),
        ((Rtn(),), "cpu", True),
        ((Rtn(on_failure="skip"),), "cpu", True),
        ((Rtn(),), "cuda", False),
        ((Rtn(observer="mse"),), "cpu", False),
        ((SmoothQuant(), Rtn()), "cpu", False),
        ((Gptq(),), "cpu", False),
    ],
)
def test_only_rounding_on_a_cpu_goes_straight(
    modifiers: tuple[Modifier, ...], device: str, straight: bool
) -> None:
    weight = RoundedWeight(scheme=W4A16, shape=(8, 128), stored="BF16")
    assert goes_straight(modifiers, device, "bfloat16", [weight]) is straight
    assert goes_straight(modifiers, device, "bfloat16", []) is straight


@pytest.mark.parametrize(
    ("change", "dtype", "straight"),
    [
        ({}, "bfloat16", True),
        ({"stored": None}, "bfloat16", False),
        ({"stored": "F32"}, "bfloat16", False),
        ({}, "float32", False),
        ({"shape": (8, 130)}, "bfloat16", False),
    ],
)
def test_one_weight_that_needs_more_decides_for_its_layer(
    change: dict[str, Any], dtype: str, straight: bool
) -> None:
    weight = RoundedWeight(scheme=W4A16, shape=(8, 128), stored="BF16")
    weights = [weight, replace(weight, **change)]
    assert goes_straight((), "cpu", dtype, weights) is straight


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    "scheme", ["fp8_dynamic", "fp8_block", "w4a16", "w8a8", "fp8", "nvfp4a16", "w4a16_asym"]
)
def test_the_plan_and_the_run_decide_alike(scheme: str, dtype: str, tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model", dtype=getattr(torch, dtype), **WIDE)
    source, blueprint = SafetensorsSource(find_weights(model.path)), model.blueprint()
    config = CompressConfig(scheme=load(scheme))
    stage, _ = surveyed(model, config, tensors=source.specs(), quantization=None)
    resolved = resolve(config.scheme, blueprint).checked()
    for layer in blueprint.layers:
        state = LayerState(
            subgraph=layer,
            tensors=layer_tensors(layer, source),
            statistics=Statistics({}, "cpu"),
            resolved={own.name: resolved[own.name] for own in layer.linears},
            dtype=getattr(torch, dtype),
            source=source,
        )
        planned = stage.work[0] == "stages.compress.rtn_streaming"
        assert is_straight(config, state) is planned
