"""Numerical trouble: named, never written, and answered as the config says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import StageFailed
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.rtn import Rtn
from stages.compress.stage import CompressConfig
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig
from tests.stages.compress.layers import Inputs, compress, info
from tests.stages.model.tiny import Folder, Tiny, tiny
from tests.stages.schemes.presets import load

G16 = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=16))
Q = "model.layers.0.self_attn.q_proj"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.fixture
def llama(tmp_path: Path) -> Tiny:
    return tiny("llama", tmp_path / "model", dtype=torch.bfloat16, num_hidden_layers=1)


def poison(model: Tiny, name: str) -> Tiny:
    """The same model with one entry of a weight that is not a number."""
    path = model.path / "model.safetensors"
    tensors = load_file(path)
    tensors[f"{name}.weight"][3, 5] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    return Tiny(path=model.path, source=Folder(model.path), config=model.config)


def silent(inputs: Inputs) -> None:
    """No token ever reaches down_proj."""
    inputs[DOWN] = inputs[DOWN][:0]


def test_a_weight_that_is_not_finite_is_an_error_that_names_it(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=G16, modifiers=(Gptq(),))
    with pytest.raises(StageFailed, match=Q) as error:
        compress(poison(llama, Q), config, tmp_path / "run")
    assert "non-finite" in str(error.value)
    assert "on_failure" in str(error.value)
    assert not (tmp_path / "run" / "layer0" / "shard.safetensors").exists()


def test_rounding_refuses_it_too(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=G16, modifiers=(Rtn(),))
    with pytest.raises(StageFailed, match=Q):
        compress(poison(llama, Q), config, tmp_path / "run")


def test_a_module_without_tokens_is_an_error_that_names_it(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=G16, modifiers=(Gptq(),))
    with pytest.raises(StageFailed, match=f"{DOWN}: calibration sent no token"):
        compress(llama, config, tmp_path / "run", edit=silent)


def test_fallback_rounds_and_says_so(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=G16, modifiers=(Gptq(on_failure="fallback"),))
    run = compress(llama, config, tmp_path / "run", edit=silent)
    result = run.artifacts[0].meta["result"]
    rows = {row["name"]: row for row in result["layers"]}
    assert (rows[DOWN]["solver"], rows[DOWN]["fallback"]) == ("rtn", "rtn")
    assert (rows[Q]["solver"], rows[Q]["fallback"]) == ("gptq", None)
    (entry,) = result["fallbacks"]
    assert entry["module"] == DOWN and "no token" in entry["reason"]
    assert any(DOWN in warning for warning in run.warnings)


def test_skip_leaves_the_module_and_its_fused_partners_dense(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=G16, modifiers=(Gptq(on_failure="skip"),))
    model = poison(llama, "model.layers.0.self_attn.v_proj")
    run = compress(model, config, tmp_path / "run")
    names = set(load_file(run.artifacts[0].path / "shard.safetensors"))
    for part in "qkv":
        assert f"model.layers.0.self_attn.{part}_proj.weight" in names
        assert f"model.layers.0.self_attn.{part}_proj.weight_packed" not in names
    assert "model.layers.0.self_attn.o_proj.weight_packed" in names
    assert Q not in info(run.artifacts[0])["modules"]
    assert len(run.artifacts[0].meta["result"]["fallbacks"]) == 3
    sums = load_file(run.artifacts[0].path / "checksum.safetensors")
    assert not any("q_proj" in name for name in sums)


def test_inputs_that_were_never_seen_have_no_scale(tmp_path: Path, llama: Tiny) -> None:
    config = CompressConfig(scheme=load("fp8"))
    with pytest.raises(StageFailed, match=f"{DOWN}: calibration sent no token"):
        compress(llama, config, tmp_path / "run", edit=silent)


def test_few_tokens_and_dead_channels_are_warnings(tmp_path: Path, llama: Tiny) -> None:
    def dead(inputs: Inputs) -> None:
        inputs[Q][:, 7] = 0

    config = CompressConfig(scheme=G16, modifiers=(Gptq(dampening_frac=0.1),))
    run = compress(llama, config, tmp_path / "run", edit=dead, tokens=40)
    assert any("fewer tokens than input channels" in w and Q in w for w in run.warnings)
    assert any("zero for every token: 1 of" in w for w in run.warnings)
    json.dumps(run.artifacts[0].meta)
