"""GPT-2, whose Conv1D modules keep W as [in, out], compressed as Linears and read by others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from pipeline.errors import UserError
from stages.model.blueprint_from_class import blueprint_of
from stages.quantized.source import check_turned
from stages.verify.standalone import inspect
from stages.weights import open_checkpoint
from tests.families.logits import error, logits
from tests.jobs import Job
from tests.test_data_free import disk

PARTS = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape")
PARTS += ("weight_global_scale",)


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    """A random GPT-2 whose attention has square matrices, with the tokenizer of the tiny Llama."""
    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model, ignore=shutil.ignore_patterns("model*", "*config.json"))
    shutil.copy(tiny_llama / "tokenizer_config.json", model)
    vocabulary = json.loads((tiny_llama / "config.json").read_text())["vocab_size"]
    torch.manual_seed(0)
    sizes = {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 128}
    made = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **sizes)).to(torch.bfloat16)
    with torch.no_grad():
        for name, weight in made.named_parameters():
            if weight.dim() == 2 and ".h." in name:
                weight.normal_(std=weight.shape[0] ** -0.5)
    made.save_pretrained(model)
    return Job(folder=tmp_path, model=model, text=some_text)


def original(job: Job) -> tuple[GPT2LMHeadModel, set[str]]:
    model = GPT2LMHeadModel.from_pretrained(job.model, dtype=torch.float32).eval()
    return model, {name for name, m in model.named_modules() if isinstance(m, Conv1D)}


def unpacked(checkpoint: Path, conv1d: set[str]) -> dict[str, Tensor]:
    """Dense tensors as GPT-2 has them, by compressed-tensors' own decompressor."""
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    (scheme,) = QuantizationConfig.model_validate(config).config_groups.values()
    library = BaseCompressor.get_value_from_registry(scheme.format or config["format"])
    found: dict[str, Tensor] = {}
    for file in checkpoint.glob("*.safetensors"):
        found |= load_file(file)
    for name in conv1d:
        parts = {p: found.pop(f"{name}.{p}") for p in PARTS if f"{name}.{p}" in found}
        if "weight" in parts:
            parts["weight"] = parts["weight"].T
        found[f"{name}.weight"] = library.decompress(parts, scheme)["weight"].T.contiguous()
    return found


def load(folder: Path) -> GPT2LMHeadModel:
    model: GPT2LMHeadModel = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def compressed(job: Job, name: str, *more: str) -> dict[str, Any]:
    """result.json of a job that compresses all Conv1D, whose weights unpack to the same logits."""
    told = job.run(name, *more)
    model, conv1d = original(job)
    assert len(conv1d) == 8
    dense = job.folder / "dense"
    shutil.rmtree(dense, ignore_errors=True)
    dense.mkdir()
    save_file(unpacked(job.folder / name / "checkpoint", conv1d), dense / "model.safetensors")
    shutil.copy(job.model / "config.json", dense)
    bound = 0.4 if any("4a16" in word for word in more) else 0.08
    assert error(logits(load(dense)), logits(model)) < bound
    return told


def test_fp8_keeps_the_orientation_of_conv1d(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    scheme = ("scheme=fp8_dynamic", "modifier=rtn", "dataset.num_samples=2")
    told = compressed(job, "fp8", *scheme)
    checkpoint = job.folder / "fp8" / "checkpoint"
    specs = open_checkpoint(checkpoint).specs()
    attention = "transformer.h.0.attn.c_attn"
    assert specs[f"{attention}.weight"].shape == (128, 384)  # what vLLM's loader transposes
    assert specs[f"{attention}.weight_scale"].shape == (384, 1)
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    assert [group["targets"] for group in config["config_groups"].values()] == [["Linear"]]
    engine = told["engines"]["transformers"]
    assert engine["loads"] is False and "compressed Conv1D modules" in engine["why"][0]
    capsys.readouterr()
    assert job.plan("modifier=rtn", "dataset.num_samples=2") == 0
    assert "does not read compressed Conv1D" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_a_checkpoint_by_itself_and_one_that_is_saved_dense(job: Job) -> None:
    scheme = ("scheme=fp8_dynamic", "modifier=rtn", "dataset.num_samples=2")
    compressed(job, "fp8", *scheme)
    checkpoint = job.folder / "fp8" / "checkpoint"
    alone = {check["name"]: check for check in inspect(checkpoint, lambda *_: None)["checks"]}
    assert [name for name, check in alone.items() if check["ok"] is False] == []
    with pytest.raises(UserError, match="such checkpoints are not read again"):
        job.run("again", *scheme, f"model.path={checkpoint}")
    # the same weights, saved dense, are a GPT-2 that transformers loads
    job.run("plain", *scheme, "save.compressed=false")
    wanted = logits(load(job.folder / "dense"))
    assert error(logits(load(job.folder / "plain" / "checkpoint")), wanted) < 0.01


def test_a_packed_one_is_not_read_again(job: Job) -> None:
    config = json.loads((job.model / "config.json").read_text())
    specs = dict(open_checkpoint(job.model).specs())
    blueprint = blueprint_of(config, specs=specs)
    name = "transformer.h.1.mlp.c_fc.weight"
    linear = next(x for x in blueprint.linears() if f"{x.prefix}.weight" == name)
    assert (linear.in_features, linear.out_features, linear.kind) == (128, 512, "Linear")
    assert name in blueprint.turned and len(blueprint.turned) == 8
    check_turned(open_checkpoint(job.model), blueprint.turned)
    # a packed checkpoint reads as what a Linear has
    wide = type(specs[name])(name=name, shape=specs[name].shape[::-1], dtype="BF16")
    with pytest.raises(UserError, match="compressed models with such modules are not read again"):
        blueprint_of(config, specs=specs | {name: wide})


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["w4a16", "w8a8", "nvfp4a16", "w4a16_asym", "fp8_block"])
def test_every_kind_of_format_unpacks_to_the_weights(job: Job, scheme: str) -> None:
    compressed(job, "run", f"scheme={scheme}", "dataset.num_samples=2")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["fp8_dynamic", "w4a16"])
def test_without_a_class_as_well(job: Job, scheme: str) -> None:
    compressed(disk(job.folder, job.model), "run", f"scheme={scheme}")
