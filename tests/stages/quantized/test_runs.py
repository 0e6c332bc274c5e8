"""Whole runs from quantized checkpoints: re-compressed to another scheme."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stages.weights import open_checkpoint
from tests.jobs import Job
from tests.stages.quantized.checkpoints import KINDS, quantize
from tests.stages.schemes.presets import NAMES

Q = "model.layers.1.self_attn.q_proj"
LAYERS = 2


def job_of(tmp_path: Path, model: Path, text: Path) -> Job:
    return Job(folder=tmp_path, model=model, text=text)


def quantization(folder: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads((folder / "config.json").read_text())["quantization_config"]
    return said


@pytest.mark.parametrize("kind", ["gptq_act", "modelopt_nvfp4"])
def test_a_quantized_model_is_compressed_again(
    tmp_path: Path, tiny_llama: Path, some_text: Path, kind: str
) -> None:
    meant = quantize(tiny_llama, tmp_path / "q", KINDS[kind])
    job = job_of(tmp_path, tmp_path / "q", some_text)
    result = job.run("run", "modifier=rtn", "scheme=fp8_dynamic")
    assert result["verify"]["ok"] is True
    assert len(result["layers"]) == 7 * LAYERS
    saved = tmp_path / "run" / "checkpoint"
    assert quantization(saved)["quant_method"] == "compressed-tensors"
    read = open_checkpoint(saved).read([f"{Q}.weight", f"{Q}.weight_scale", "lm_head.weight"])
    back = read[f"{Q}.weight"].float() * read[f"{Q}.weight_scale"].float()
    wanted = meant[f"{Q}.weight"]
    assert (back - wanted).norm() < 0.04 * wanted.norm()
    assert torch.equal(read["lm_head.weight"].float(), meant["lm_head.weight"])


def test_a_quantized_model_is_calibrated_and_solved_again(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["gptq_8"])
    job = job_of(tmp_path, tmp_path / "q", some_text)
    assert job.run("run", "modifier=gptq", "scheme=w4a16")["verify"]["ok"] is True


WRITTEN = ("w4a16_asym", "mxfp4", "mixed", "mxfp6a16")


@pytest.mark.parametrize("scheme", [name for name in WRITTEN if name in NAMES])
def test_what_was_written_here_is_compressed_again(
    tmp_path: Path, tiny_llama: Path, some_text: Path, scheme: str
) -> None:
    small = ["scheme.weights.group_size=32"] if scheme.startswith("w4a16") else []
    first = job_of(tmp_path, tiny_llama, some_text)
    first.run("first", "modifier=rtn", f"scheme={scheme}", *small)
    again = job_of(tmp_path, tmp_path / "first" / "checkpoint", some_text)
    result = again.run("second", "modifier=rtn", "scheme=fp8_block")
    assert result["verify"]["ok"] is True
    assert len(result["layers"]) == 7 * LAYERS
    assert "fp8" in result["layers"][0]["scheme"].lower()


def test_another_reader_makes_another_key(
    tmp_path: Path, tiny_llama: Path, some_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.quantized import catalog

    quantize(tiny_llama, tmp_path / "q", KINDS["fp8_tensor"])
    job = job_of(tmp_path, tmp_path / "q", some_text)
    one = job.run("one", "modifier=rtn", "scheme=w8a16")
    newer = catalog.Reader(place=catalog.READERS["fp8"].place, version=2)
    monkeypatch.setitem(catalog.READERS, "fp8", newer)
    other = job.run("other", "modifier=rtn", "scheme=w8a16")
    for before, after in zip(one["nodes"], other["nodes"], strict=True):
        assert set(before["keys"].values()).isdisjoint(after["keys"].values())


def test_nothing_of_the_sources_own_quantization_leaks(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["gptq"])
    (tmp_path / "q" / "quantize_config.json").write_text('{"bits": 4}')
    (tmp_path / "q" / "chat_template.jinja").write_text("{{ messages }}")
    job = job_of(tmp_path, tmp_path / "q", some_text)
    job.run("run", "modifier=rtn", "scheme=w8a16")
    saved = tmp_path / "run" / "checkpoint"
    assert not (saved / "quantize_config.json").exists()
    assert (saved / "chat_template.jinja").read_text() == "{{ messages }}"
    assert "bits" not in quantization(saved)
    tensors = [name for path in saved.glob("*.safetensors") for name in load_file(path)]
    assert not [name for name in tensors if name.endswith(("qweight", "g_idx", "qzeros"))]


def test_a_side_file_tells_what_config_json_does_not(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["modelopt_nvfp4"])
    path = tmp_path / "q" / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    said = {"quantization": {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": []}}
    (tmp_path / "q" / "hf_quant_config.json").write_text(json.dumps(said))
    job = job_of(tmp_path, tmp_path / "q", some_text)
    result = job.run("run", "modifier=rtn", "scheme=w8a16")
    assert result["verify"]["ok"] is True
    assert not (tmp_path / "run" / "checkpoint" / "hf_quant_config.json").exists()
