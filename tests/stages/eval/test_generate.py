"""Generations side by side: those of transformers, or a note why there are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.errors import UserError
from stages.eval.estimates import model_bytes
from stages.eval.generate import Generate, GenerateConfig
from tests.stages.eval.chain import chain, compressed_checkpoint
from tests.stages.tokens.fakes import byte_tokenizer

PROMPTS = ["The capital of France is", "def f("]


def greedy(path: Path) -> list[str]:
    """By transformers' own loading and a plain argmax loop."""
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer, texts = byte_tokenizer(), []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        start = ids.shape[1]
        for _ in range(6):
            with torch.no_grad():
                ids = torch.cat((ids, model(ids).logits[:, -1:].argmax(-1)), dim=1)
            if ids[0, -1] == model.config.eos_token_id:
                break
        texts.append(tokenizer.decode(ids[0, start:], skip_special_tokens=True))
    return texts


@pytest.mark.parametrize("preset", ["W4A16", "W8A8"])
def test_both_models_continue_as_transformers_has_them(tmp_path: Path, preset: str):
    made = chain(tmp_path)
    checkpoint = compressed_checkpoint(made, tmp_path / "save", preset)
    stage = Generate(GenerateConfig(prompts=PROMPTS, max_new_tokens=6))
    draft = made.run(stage, "generate", checkpoint=checkpoint)
    pairs = draft.json("generate.json")["generations"]
    assert [pair["prompt"] for pair in pairs] == PROMPTS
    assert [pair["original"] for pair in pairs] == greedy(made.model.path)
    assert [pair["compressed"] for pair in pairs] == greedy(checkpoint.path / "checkpoint")
    assert draft.meta["result"]["generations"] == pairs


def test_a_model_beyond_the_budget_is_told_and_not_run(tmp_path: Path):
    made = chain(tmp_path)
    stage = Generate(GenerateConfig(prompts=PROMPTS, max_model_bytes=1000))
    result = made.run(stage, "generate").meta["result"]
    assert result["generations"] == []
    assert "not run: a model of 0.0 GB does not fit" in result["not_checked"][0]


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_size_of_a_model_counts_tied_weights_once(tmp_path: Path, family: str):
    made = chain(tmp_path, family)
    model = made.model.original()
    assert model_bytes(made.model.blueprint()) == 4 * sum(p.numel() for p in model.parameters())


def test_an_empty_prompt_is_refused():
    with pytest.raises(UserError, match="a prompt is empty"):
        GenerateConfig(prompts=["a", ""])
