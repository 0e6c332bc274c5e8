"""Rotated jobs: the checkpoint computes what the model does, and nothing is built for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from pipeline.errors import UserError
from tests.families.unpack import tensors_of
from tests.jobs import Job, built
from tests.test_smoothing_jobs import job

W8 = ("scheme=w8a16", "scheme.weights.group_size=32", "scheme.weights.strategy=group")
SPIN = ("modifier=[spinquant,rtn]", "modifier.rtn.observer=minmax")
GPT2 = ("save.compressed=false",)
"""Transformers loads a dense GPT-2 only."""
BITS = "scheme.budget.bits_per_weight=8.5"
IDS = torch.arange(3, 35).view(2, 16)


def logits(folder: Path) -> Tensor:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found.float()


def differs(made: Job, name: str) -> float:
    """How far the logits of a run's checkpoint are from the model's, relative to their spread."""
    one, other = logits(made.model), logits(made.folder / name / "checkpoint")
    return float((one - other).norm() / one.norm())


def kept(folder: Path, name: str) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((folder / name / "checkpoint" / "config.json").read_text())
    return parsed


@pytest.mark.parametrize(
    "name",
    [
        "qwen3",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("llama", "gemma", "qwen3_moe", "mixtral", "cohere2", "gpt2", "phi3")
        ),
    ],
)
def test_a_rotated_checkpoint_computes_what_the_model_does(name: str, tmp_path: Path) -> None:
    made = job(name, tmp_path)
    dense = GPT2 if name == "gpt2" else ()
    result = made.run("rotated", *SPIN, *W8, *dense)
    assert differs(made, "rotated") < 0.1  # by 8 bits and bfloat16; rotated wrongly, it is about 1
    assert {"rotations", "rotate", "pairs"} <= built(result)
    assert result["rotation"]["layers"] == 4 and result["rotations"]["refused"].get("R1") is None
    assert result["verify"]["ok"] and max(result["rotations"]["difference"].values()) < 1e-12
    before, after = tensors_of(made.model), tensors_of(tmp_path / "rotated" / "checkpoint")
    tied = not any("lm_head" in key for key in before)
    assert result["rotation"]["untied"] == tied
    assert not kept(tmp_path, "rotated").get("tie_word_embeddings")
    assert ("lm_head.weight" in after) and result["size"]["original_bytes"] == sum(
        tensor.nbytes for tensor in before.values()
    )
    norms = [key for key in after if key.endswith("norm.weight") and len(after[key]) == 64]
    assert all(len(after[key].unique()) == 1 for key in norms if "self_attn" not in key)
    again = made.run("again", *SPIN, *W8, *dense)
    assert not built(again) and made.checkpoint("again") == made.checkpoint("rotated")


@pytest.mark.slow
def test_a_model_that_is_not_rotated_proves_nothing_of_it(tmp_path: Path) -> None:
    made = job("olmo2", tmp_path)
    assert built(made.run("plain", "modifier=rtn", *W8)).isdisjoint({"rotations", "rotate"})
    with pytest.raises(UserError, match="cannot be rotated by R1") as told:
        made.run("rotated", *SPIN, *W8)
    assert "post_feedforward_layernorm" in told.value.what
    assert "rotations=[R2]" in told.value.remedy


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("modifier=[spinquant,smoothquant,gptq]", "scheme=w8a8"),
        ("modifier=[spinquant,awq,rtn]", *W8),
        ("modifier=[spinquant,log_equalization,gptq]", "scheme=int8"),
        ("modifier=[spinquant,sparsegpt,gptq]", *W8, "modifier.sparsegpt.sparsity=0.01"),
        ("modifier=[spinquant,autoround]", *W8, "modifier.autoround.iterations=2"),
        ("modifier=[spinquant,gptq]", *W8, "kv_cache=fp8"),
        ("modifier=[spinquant,gptq]", *W8, "scheme.ignore=[]", "scheme.targets=[Linear,lm_head]"),
        ("modifier=[spinquant,gptq]", "calibrate.propagate=original", *W8, "save.compressed=false"),
        ("modifier=[spinquant,rtn]", *W8, "modifier.spinquant.transform_type=random-matrix"),
        ("modifier=[spinquant,rtn]", *W8, "modifier.spinquant.block_size=32"),
        ("modifier=[spinquant,rtn]", "scheme=auto", "scheme.group_sizes=[32]", BITS),
    ],
    ids=lambda words: " ".join(words[-2:]),
)
def test_what_follows_a_rotation_runs_on_the_rotated_model(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    made = job("qwen3", tmp_path)
    assert made.run("rotated", *words)["verify"]["ok"]
    assert differs(made, "rotated") < 0.15
