"""Quantizing the lm_head and the token embedding, tied or not, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from pipeline.errors import ManyErrors, UserError
from stages.weights import open_checkpoint
from tests.jobs import Job, built

HEAD = ["scheme.ignore=[]", "scheme.targets=[Linear,lm_head]"]
LOOKUP = "{weights:{num_bits:8,type:int,symmetric:true,strategy:channel},targets:[Embedding]}"
EMBEDDING = [f"+scheme.groups.lookup={LOOKUP}"]
EVAL = ["eval.dataset.num_samples=2", "eval.dataset.sequence_length=32", "eval.max_new_tokens=2"]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def job(request: pytest.FixtureRequest, tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    config = LlamaConfig.from_pretrained(tiny_llama)
    config.tie_word_embeddings = request.param
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    for file in tiny_llama.iterdir():
        if not (folder / file.name).exists() and file.suffix != ".safetensors":
            (folder / file.name).write_bytes(file.read_bytes())
    return Job(folder=tmp_path, model=folder, text=some_text)


def loaded(job: Job) -> LlamaForCausalLM:
    model, loading = AutoModelForCausalLM.from_pretrained(
        job.folder / "run" / "checkpoint", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    return model


@pytest.mark.parametrize("more", [HEAD, EMBEDDING, HEAD + EMBEDDING], ids=["head", "emb", "both"])
@pytest.mark.parametrize("modifier", ["gptq", pytest.param("rtn", marks=pytest.mark.slow)])
def test_head_and_embedding_are_compressed_checked_and_loaded(
    job: Job, more: list[str], modifier: str
) -> None:
    data = ["eval=text", f"eval.dataset.path={job.text}", *EVAL]
    result = job.run("run", f"modifier={modifier}", *more, *data)
    assert result["verify"]["ok"] is True
    measured = {"calibrate_outside"} & built(result)
    assert bool(measured) == (modifier == "gptq" and more != EMBEDDING)
    rows = {row["name"]: row for row in result["layers"]}
    names = {"lm_head"} if more == HEAD else {"model.embed_tokens"}
    assert (names if more != HEAD + EMBEDDING else names | {"lm_head"}) <= rows.keys()
    assert all(rows[name]["relative_error"] < 0.05 for name in names)
    settings = json.loads((job.folder / "run/checkpoint/config.json").read_text())
    assert settings["tie_word_embeddings"] is False
    if more == HEAD:  # transformers cannot load an embedding without a plain weight
        assert torch.isfinite(loaded(job)(torch.arange(8)[None]).logits).all()
    else:
        assert any("transformers cannot load" in warning for warning in result["warnings"])
    assert result["eval"]["kl"] < 0.1


def test_the_dense_half_of_an_untied_pair_keeps_its_bytes(job: Job) -> None:
    job.run("run", "modifier=rtn", *HEAD)
    saved = open_checkpoint(job.folder / "run" / "checkpoint")
    name = "model.embed_tokens.weight"
    before = open_checkpoint(job.model).read([name])[name]
    assert torch.equal(saved.read([name])[name], before)
    assert "lm_head.weight" not in saved.specs() and "lm_head.weight_packed" in saved.specs()


def test_engines_find_head_and_embedding_by_name(job: Job) -> None:
    job.run("run", "modifier=rtn", *HEAD, *EMBEDDING)
    config = json.loads((job.folder / "run/checkpoint/config.json").read_text())
    groups = config["quantization_config"]["config_groups"].values()
    assert sorted(t for g in groups for t in g["targets"] if t != "Linear") == [
        "lm_head",
        "model.embed_tokens",
    ]
    assert config["quantization_config"]["ignore"] == []


def test_an_embedding_with_quantized_inputs_is_refused(job: Job) -> None:
    with pytest.raises((UserError, ManyErrors), match="token ids"):
        job.run("run", "scheme=w8a8", "scheme.targets=[Linear,Embedding]")
