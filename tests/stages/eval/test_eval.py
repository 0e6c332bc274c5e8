"""Streamed evaluation gives what transformers' own forward gives."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import StageFailed
from stages.eval import run as comparison
from stages.eval.hidden import Hidden, HiddenConfig
from stages.eval.stage import Eval, EvalConfig
from tests.stages.eval.chain import (
    VOCAB,
    Chain,
    add_samples,
    chain,
    compressed_checkpoint,
    dense_checkpoint,
    reference_logits,
    reference_result,
)
from tests.stages.tokens.fakes import FakeArtifact

LENGTHS = [24, 7, 24, 2, 1]


def evaluate(made: Chain, checkpoint: FakeArtifact, batch_size: int = 2) -> dict:
    stage = Hidden(HiddenConfig(batch_size=batch_size))
    before = made.run(stage, "original")
    after = made.run(stage, "compressed", checkpoint=checkpoint)
    draft = made.run(
        Eval(EvalConfig()), "eval", original=before, compressed=after, checkpoint=checkpoint
    )
    result = draft.json("eval.json")
    assert draft.meta["result"] == {"eval": result}
    return result


def assert_close(result: dict, wanted: dict, tolerance: float) -> None:
    flat = {**result.pop("perplexity"), **result}
    assert flat.pop("dataset") == "noise"
    assert flat == {name: pytest.approx(value, rel=tolerance) for name, value in wanted.items()}


PER_LAYER = {"vocab_size_per_layer_input": VOCAB}


@pytest.mark.parametrize(
    "family",
    [
        *("llama", "mixtral", "gemma3n_text", "bloom"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("qwen3", "gemma2", "granite", "gemma4_text")
        ),
    ],
)
def test_measures_equal_those_of_plain_transformers(tmp_path: Path, family: str, monkeypatch):
    monkeypatch.setattr(comparison, "LOGITS", 10 * 272)  # several chunks a batch
    made = chain(
        tmp_path, family, **(PER_LAYER if family.startswith(("gemma3n", "gemma4")) else {})
    )
    ids = add_samples(made, LENGTHS)
    checkpoint = dense_checkpoint(made, tmp_path / "save", noise=0.02)
    wanted = reference_result(
        reference_logits(made.model.path, ids, LENGTHS),
        reference_logits(checkpoint.path / "checkpoint", ids, LENGTHS),
        ids,
    )
    assert wanted["kl"] > 1e-4
    assert_close(evaluate(made, checkpoint), wanted, 1e-4)


@pytest.mark.parametrize("preset", ["W4A16", "W8A8", "FP8_DYNAMIC"])
def test_a_compressed_checkpoint_counts_as_transformers_runs_it(tmp_path: Path, preset: str):
    made = chain(tmp_path)
    ids = add_samples(made, LENGTHS)
    checkpoint = compressed_checkpoint(made, tmp_path / "save", preset)
    wanted = reference_result(
        reference_logits(made.model.path, ids, LENGTHS),
        reference_logits(checkpoint.path / "checkpoint", ids, LENGTHS),
        ids,
    )
    assert wanted["kl"] > 1e-5
    assert_close(evaluate(made, checkpoint), wanted, 1e-3)


def test_a_checkpoint_equal_to_the_original_has_no_divergence(tmp_path: Path):
    made = chain(tmp_path, dtype=torch.bfloat16)
    add_samples(made, LENGTHS)
    result = evaluate(made, dense_checkpoint(made, tmp_path / "save", noise=0.0))
    assert result["kl"] == 0.0 and result["top1_agreement"] == 1.0
    found = result["perplexity"]
    assert found["original"] == found["compressed"]
    assert found["change"] == found["change_stderr"] == result["kl_stderr"] == 0.0
    assert found["original_stderr"] == found["compressed_stderr"] > 0.0
    assert found["samples"] == 4  # the last one predicts nothing


def test_hidden_states_are_those_of_one_forward_to_the_bit(tmp_path: Path):
    made = chain(tmp_path, dtype=torch.bfloat16)
    ids = add_samples(made, [24, 24, 24])
    states = made.run(Hidden(HiddenConfig(batch_size=2)), "hidden")
    model = made.model.original().float()
    for name, rows in (("00000", ids[:2]), ("00001", ids[2:])):
        with torch.no_grad():
            wanted = model.model(rows, use_cache=False).last_hidden_state
        assert torch.equal(load_file(states.path / f"{name}.safetensors")["hidden"], wanted)


def test_padding_counts_for_nothing(tmp_path: Path):
    made = chain(tmp_path)
    add_samples(made, [9, 20])
    checkpoint = dense_checkpoint(made, tmp_path / "save", noise=0.02)
    path = made.inputs["tokens"].path / "tokens.safetensors"
    first = evaluate(made, checkpoint)
    tensors = load_file(path)
    tensors["input_ids"][0, 9:] = 5
    save_file(tensors, path)
    other = Chain(folder=tmp_path / "again", model=made.model, inputs=made.inputs)
    other.folder.mkdir()
    assert evaluate(other, checkpoint) == first
    assert first["perplexity"]["tokens"] == 8 + 19


def test_broken_weights_are_named_and_never_measured(tmp_path: Path):
    made = chain(tmp_path)
    add_samples(made, [8, 8])
    checkpoint = dense_checkpoint(made, tmp_path / "save", noise=0.0)
    path = checkpoint.path / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.2.mlp.up_proj.weight"][3, 5] = math.nan
    save_file(tensors, path)
    with pytest.raises(StageFailed, match=r"model\.layers\.2 is not finite"):
        made.run(Hidden(HiddenConfig()), "compressed", checkpoint=checkpoint)


def test_samples_of_one_token_predict_nothing(tmp_path: Path):
    made = chain(tmp_path)
    add_samples(made, [1, 1])
    checkpoint = dense_checkpoint(made, tmp_path / "save", noise=0.0)
    with pytest.raises(StageFailed, match="no second token"):
        evaluate(made, checkpoint)
