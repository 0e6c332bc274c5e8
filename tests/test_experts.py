"""Whole runs on models with experts: every expert on disk is compressed, and right when unpacked.

Checkpoints are unpacked by compressed-tensors alone, put together again by the layout that the
family is known to have, and run by transformers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from stages.model.meta_model import class_of, config_of
from tests.jobs import Job
from tests.stages.model.experts.families import EXPERTS
from tests.stages.model.experts.tiny import IDS, random_model
from tests.stages.tokens.fakes import byte_tokenizer
from tests.test_data_free import disk

FUSED = re.compile(
    r"\.(gate_up_proj|down_proj|input_linear\.weight|output_linear\.weight)(_bias)?$"
)
TRANSPOSED = {"gpt_oss", "llama4_text"}
INTERLEAVED = {"gpt_oss"}
PARTS = ("weight_packed", "weight", "weight_scale", "weight_shape", "weight_zero_point")
QUICK = ["gpt_oss", "llama4_text", "nemotron_h", "granitemoe"]
GPTQ = ["gpt_oss", "gemma4_text", "qwen3_vl_moe", "deepseek_v3", "afmoe", "lfm2_moe", "minimax_m2"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A saved model, as transformers wrote and as it reads it."""

    family: str
    folder: Path

    @property
    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "config.json").read_text()))

    def tensors(self) -> dict[str, Tensor]:
        return load_file(self.folder / "model.safetensors")

    def logits(self, tensors: Mapping[str, Tensor], folder: Path) -> Tensor:
        """Logits of the model with other tensors, under the names of its own file."""
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(self.config))
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        loader: Any = class_of(config_of(self.config))
        model: PreTrainedModel = loader.from_pretrained(folder, dtype=torch.float32).eval()
        with torch.no_grad():
            logits: Tensor = model(input_ids=IDS, use_cache=False).logits
        return logits


def saved(family: str, folder: Path) -> Model:
    random_model(family, dtype=torch.bfloat16).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return Model(family=family, folder=folder)


def unpacked(checkpoint: Path) -> tuple[dict[str, Tensor], set[str]]:
    """Dense tensors by name, and the names of the modules that were compressed."""
    stored: dict[str, Tensor] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        stored |= load_file(file)
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    [scheme] = QuantizationConfig.model_validate(config).config_groups.values()
    assert isinstance(scheme, QuantizationScheme)
    compressor: Any = BaseCompressor.get_value_from_registry(str(scheme.format))
    modules = {n.removesuffix(".weight_scale") for n in stored if n.endswith(".weight_scale")}
    dense = {n: t for n, t in stored.items() if n.rpartition(".")[0] not in modules}
    for module in modules:
        parts = {part: stored[f"{module}.{part}"] for part in PARTS if f"{module}.{part}" in stored}
        dense[f"{module}.weight"] = compressor.decompress(parts, scheme)["weight"].bfloat16()
        if f"{module}.bias" in stored:
            dense[f"{module}.bias"] = stored[f"{module}.bias"]
    assert not modules & set(config["ignore"])
    return dense, modules


def together(model: Model, dense: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the model's own file, made of those of the checkpoint."""
    found = {}
    for name, original in model.tensors().items():
        if name in dense:
            found[name] = dense[name]
            continue
        leaf = FUSED.search(name)
        assert leaf is not None, name
        base = re.sub(r"block_sparse_moe$", "block_sparse_moe.experts", name[: leaf.start()])
        halves = ("gate_proj", "up_proj") if leaf[1][0] in "gi" else ("down_proj",)
        suffix = "bias" if leaf[2] else "weight"
        blocks = []
        for expert in range(len(original)):
            rows = [dense[f"{base}.{expert}.{half}.{suffix}"] for half in halves]
            if len(rows) == 2 and model.family in INTERLEAVED:
                block = torch.stack(rows, dim=1).flatten(0, 1)
            else:
                block = torch.cat(rows)
            turned = model.family in TRANSPOSED and suffix == "weight"
            blocks.append(block.T if turned else block)
        found[name] = torch.stack(blocks).contiguous()
        assert found[name].shape == original.shape
    return found


def check(family: str, some_text: Path, folder: Path, bound: float, *overrides: str) -> None:
    model = saved(family, folder / "model")
    job = Job(folder=folder, model=model.folder, text=some_text)
    result = job.run("run", "dataset.sequence_length=32", *overrides)
    assert result["verify"]["ok"] is True
    dense, modules = unpacked(folder / "run" / "checkpoint")
    experts = {name for name in dense if ".experts." in name and name.endswith(".weight")}
    assert experts
    assert {name.removesuffix(".weight") for name in experts} <= modules
    assert not any(re.search(r"\.(gate|router|shared_expert_gate)$", name) for name in modules)
    original = model.logits(model.tensors(), folder / "original")
    logits = model.logits(together(model, dense), folder / "dense")
    assert (logits - original).norm() < bound * original.norm()
    assert not torch.equal(logits, original)


@pytest.mark.parametrize(
    "family", [f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in EXPERTS]
)
def test_rounded_experts_are_right_when_unpacked(
    family: str, some_text: Path, tmp_path: Path
) -> None:
    check(family, some_text, tmp_path, 0.25, "scheme=fp8_dynamic", "modifier=rtn")


@pytest.mark.parametrize(
    "family", [*QUICK[:1], pytest.param("qwen3_vl_moe", marks=pytest.mark.slow)]
)
def test_without_a_class_fused_experts_get_the_same_bytes(
    family: str, some_text: Path, tmp_path: Path
) -> None:
    model = saved(family, tmp_path / "model")
    job = Job(folder=tmp_path, model=model.folder, text=some_text)
    job.run("class", "scheme=fp8_dynamic", "modifier=rtn")
    disk(tmp_path, model.folder).run("names", "scheme=fp8_dynamic")
    one, other = (unpacked(tmp_path / name / "checkpoint") for name in ("class", "names"))
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert not any("visual" in name for name in one[1])


def test_experts_in_mxfp4_are_read_as_transformers_reads_them(
    some_text: Path, tmp_path: Path
) -> None:
    model = saved("gpt_oss", tmp_path / "model")
    stored, dense = dict(model.tensors()), dict(model.tensors())
    generator = torch.Generator().manual_seed(3)
    for name in [n for n in stored if n.endswith(("gate_up_proj", "down_proj"))]:
        experts, columns, rows = stored.pop(name).shape
        shape = (experts, rows, columns // 32)
        blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(121, 124, shape, dtype=torch.uint8, generator=generator)
        stored |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        dense[name] = convert_moe_packed_tensors(blocks, scales)
    save_file(stored, model.folder / "model.safetensors", metadata={"format": "pt"})
    config = model.config | {"quantization_config": {"quant_method": "mxfp4"}}
    (model.folder / "config.json").write_text(json.dumps(config))
    job = Job(folder=tmp_path, model=model.folder, text=some_text)
    job.run("calibrated", "scheme=fp8_dynamic", "modifier=rtn")
    disk(tmp_path, model.folder).run("data_free", "scheme=fp8_dynamic")
    for graph in ("calibrated", "data_free"):
        found, modules = unpacked(tmp_path / graph / "checkpoint")
        gate = "model.layers.1.mlp.experts.3.gate_proj"
        wanted = dense["model.layers.1.mlp.experts.gate_up_proj"][3, :, ::2].T
        assert gate in modules
        error = (found[f"{gate}.weight"].float() - wanted.float()).norm()
        assert error < 0.04 * wanted.float().norm()


@pytest.mark.parametrize(
    "family", [f if f == "gpt_oss" else pytest.param(f, marks=pytest.mark.slow) for f in GPTQ]
)
def test_solved_experts_are_right_when_unpacked(
    family: str, some_text: Path, tmp_path: Path
) -> None:
    check(family, some_text, tmp_path, 0.6, "scheme=w4a16_g64", "scheme.weights.group_size=32")
