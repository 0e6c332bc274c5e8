"""Models and data that do not fit each other: one clear error, as early as it can be known."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from pipeline.errors import UserError
from tests.benchmarks.random_llama import TINY, write_model
from tests.jobs import Job, built


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model)
    return Job(folder=tmp_path, model=model, text=some_text)


@pytest.fixture
def gpt2(job: Job) -> Job:
    """A GPT-2 with 48 positions, and the tokenizer of the tiny Llama."""
    vocabulary = json.loads((job.model / "config.json").read_text())["vocab_size"]
    for file in job.model.iterdir():
        if file.name.startswith(("model", "config", "generation")):
            file.unlink()
    sizes = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 48}
    GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, **sizes)).save_pretrained(job.model)
    return job


def refused(job: Job, *more: str, mode: str = "run") -> str:
    with pytest.raises(UserError) as caught:
        job.plan(*more) if mode == "plan" else job.run("run", *more)
    return str(caught.value)


@pytest.mark.parametrize("mode", ["plan", "run"])
def test_sequences_longer_than_learned_positions(gpt2: Job, mode: str) -> None:
    told = refused(gpt2, "scheme.ignore=[]", mode=mode)
    assert "dataset.sequence_length is 64" in told and "positions for 48 tokens" in told
    assert "say dataset.sequence_length=48" in told
    if mode == "run":
        result = json.loads((gpt2.folder / "run" / "result.json").read_text())
        assert built(result) <= {"load", "patch"}


def test_a_token_without_a_row_in_the_embedding(job: Job) -> None:
    shutil.rmtree(job.model)
    write_model(job.model, replace(TINY, vocab=64))
    told = refused(job, "dataset.num_samples=2")
    assert "the tokenizer makes id" in told and "vocabulary of 64 tokens (0 to 63)" in told


@pytest.mark.parametrize("modifier", ["rtn", "gptq"])
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("model.layers.1.mlp.up_proj.weight", math.nan, "NaN at [1, 2]"),
        ("model.layers.1.input_layernorm.weight", math.inf, "infinity at [2]"),
        ("model.embed_tokens.weight", -math.inf, "infinity at [1, 2]"),
        ("model.norm.weight", math.nan, "NaN at [2]"),
        ("lm_head.weight", math.nan, "NaN at [1, 2]"),
        ("mtp.fc.weight", math.nan, "NaN at [1, 2]"),
    ],
)
def test_a_weight_that_is_not_finite(
    job: Job, name: str, value: float, told: str, modifier: str
) -> None:
    index = job.model / "model.safetensors.index.json"
    places = json.loads(index.read_text())
    file = places["weight_map"].setdefault(name, "model-outside.safetensors")
    index.write_text(json.dumps(places))
    tensors = load_file(job.model / file)
    weight = tensors.setdefault(name, next(t for t in tensors.values() if t.dim() == 2).clone())
    weight[(1, 2) if weight.dim() == 2 else 2] = value
    save_file(tensors, job.model / file, metadata={"format": "pt"})
    text = refused(job, f"modifier={modifier}")
    assert f"the model has weights that are not finite: {name} has {told}" in text
    assert built(json.loads((job.folder / "run" / "result.json").read_text())) == set()


def test_targets_of_another_class_than_transposed_linears_have_here(gpt2: Job) -> None:
    given = ("modifier=rtn", "dataset.sequence_length=48")
    told = refused(gpt2, *given, "scheme.targets=[Conv1D]", mode="plan")
    assert "'Conv1D' of scheme matches no module" in told and "classes: Linear (8)" in told
    assert gpt2.plan(*given, "scheme.targets=['re:.*c_attn']") == 0
