"""The model card: base model, data, scheme, loading, licence; quality once it was measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from stages.formats.provenance import prove
from stages.save.card import Card as CardStage
from stages.save.card import CardConfig
from stages.save.model_card import Card, base_model, model_card, with_quality
from stages.save.stage import Save, SaveConfig
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.site import FakeSite
from tests.stages.model.tiny import tiny
from tests.stages.save.checkpoints import WIDE, run, save
from tests.stages.schemes.presets import load

CARD = Card(
    name=None,
    architecture="LlamaForCausalLM",
    identity="hub:org/base@0123abc",
    license="apache-2.0",
    size={
        "original_bytes": 16e6,
        "compressed_bytes": 5e6,
        "bits_per_weight": 4.25,
        "whole_bits_per_weight": 5.0,
    },
    rows=[{"name": "a", "scheme": "W4A16 g64", "relative_error": 0.01}],
    fallbacks=[],
    recipe="scheme: {}\n",
    data="text | of mine, 8192 tokens",
    modifiers=("smoothquant", "gptq"),
)
MEASURED = {
    "perplexity": {
        "original": 19.824,
        "original_stderr": 1.31,
        "compressed": 21.068,
        "compressed_stderr": 1.42,
        "change": 0.06275,
        "change_stderr": 0.0063,
        "tokens": 4088,
        "samples": 8,
        "dataset": "pydoc",
    },
    "kl": 0.0713,
    "kl_stderr": 0.0042,
    "top1_agreement": 0.8837,
    "top1_agreement_stderr": None,
}


def test_the_card_says_what_was_made_of_what_and_how_to_load_it() -> None:
    text = model_card(CARD)
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == "org/base" and front["base_model_relation"] == "quantized"
    assert front["license"] == "apache-2.0"
    assert "| base model | [org/base](https://huggingface.co/org/base) |" in text
    assert "| scheme | W4A16 g64 |" in text and "| modifiers | smoothquant, gptq |" in text
    assert "| calibration data | text / of mine, 8192 tokens |" in text
    assert "| bits per weight, of the weights that were compressed | 4.25 |" in text
    assert "vllm serve" in text and "sglang.launch_server" in text and "from_pretrained" in text
    assert "Quality" not in text


def test_a_model_from_elsewhere_has_no_base_model_on_the_hub() -> None:
    assert base_model("sha256:0123") is None
    text = model_card(replace(CARD, identity="sha256:0123", license=None, data=None))
    assert "base_model" not in text and "| base model | LlamaForCausalLM |" in text
    assert "| calibration data | none |" in text
    wheel = model_card(replace(CARD, identity="wheel:0123:package/Some-135M.Q4_1.gguf"))
    assert "| base model | LlamaForCausalLM, Some-135M.Q4_1.gguf |" in wheel
    assert "| licence of the base model | see the base model |" in text


def test_quality_stands_before_loading_with_its_standard_errors() -> None:
    text = with_quality(model_card(CARD), MEASURED)
    assert text.index("## Quality") < text.index("## How to load it")
    assert "| perplexity | 19.82 ± 1.3 | 21.07 ± 1.4 | +6.3 ± 0.63 % |" in text
    assert "0.0713 ± 0.0042" in text and "| 88.4 % |" in text
    assert "On 4088 tokens, 8 samples, of pydoc" in text
    assert text.replace(text[text.index("## Quality") : text.index("## How")], "") == model_card(
        CARD
    )


TASKS = {
    "scores": {
        "arc_easy": {
            "main": "acc_norm",
            "samples": 100,
            "shots": 5,
            "acc_norm": {
                "original": 0.62,
                "compressed": 0.6,
                "difference": -0.02,
                "error": 0.0141,
                "higher_is_better": True,
            },
        },
        "wikitext": {
            "main": "word_perplexity",
            "samples": 62,
            "shots": 0,
            "word_perplexity": {
                "original": 12.5,
                "compressed": 13.25,
                "difference": 0.75,
                "error": None,
                "higher_is_better": False,
            },
        },
    },
    "mean": {"original": 0.62, "compressed": 0.6, "difference": -0.02, "error": 0.0141, "tasks": 1},
}


def test_task_scores_stand_in_the_card_alone_or_below_the_perplexity() -> None:
    alone = with_quality(model_card(CARD), tasks=TASKS)
    assert "| arc_easy (acc_norm) | 62 % | 60 % | -2 ± 1.4 points |" in alone
    assert "| wikitext (word_perplexity) | 12.5 | 13.25 | +0.75 |" in alone
    assert "arc_easy 100 documents with 5 examples, wikitext 62 documents;" in alone
    assert "| mean |" not in alone and "perplexity |" not in alone.replace("word_perplexity", "")
    both = with_quality(
        model_card(CARD), MEASURED, {**TASKS, "mean": {**TASKS["mean"], "tasks": 2}}
    )
    assert both.count("## Quality") == 1
    assert both.index("| perplexity |") < both.index("| mean | 62 % | 60 % |")
    assert both.index("| mean |") < both.index("## How to load it")
    assert with_quality(model_card(CARD)) == model_card(CARD)


@pytest.mark.parametrize("linked", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_finished_checkpoint_has_the_same_weights_and_a_whole_provenance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    model = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, **WIDE)
    saved = save(model, load("w4a16"), tmp_path)
    measured = FakeArtifact(path=tmp_path / "eval")
    measured.path.mkdir()
    measured.write_json("eval.json", MEASURED)
    out = FakeArtifact(path=tmp_path / "card")
    out.path.mkdir()
    if not linked:
        monkeypatch.setattr("os.link", lambda *paths: (_ for _ in ()).throw(OSError("no links")))
    scored = FakeArtifact(path=tmp_path / "tasks")
    scored.path.mkdir()
    scored.write_json("tasks.json", TASKS)
    inputs = {"checkpoint": saved.artifact, "eval": measured, "tasks": scored}
    run(CardStage(CardConfig()), inputs, out, tmp_path)
    folder = out.path / "checkpoint"
    weights = "model.safetensors"
    assert (folder / weights).samefile(saved.folder / weights) is linked
    assert (folder / weights).read_bytes() == (saved.folder / weights).read_bytes()
    assert {path.name for path in folder.iterdir()} == {
        path.name for path in saved.folder.iterdir()
    }
    assert "## Quality" in (folder / "README.md").read_text()
    assert "arc_easy" in (folder / "README.md").read_text()
    proof = prove(folder)
    assert proof.digest and not proof.faults and not proof.added
    before, after = (
        json.loads((f / "provenance.json").read_text()) for f in (saved.folder, folder)
    )
    keys = {"save": saved.artifact.key, "eval": measured.key, "tasks": scored.key}
    assert after["keys"] == {**before["keys"], **keys}
    assert after["source"] == before["source"]


def test_the_data_is_named_after_the_input_tokens(tmp_path: Path) -> None:
    blueprint = tiny("llama", tmp_path, dtype=torch.bfloat16, **WIDE).blueprint()
    stage = Save(SaveConfig(scheme=load("w4a16")))
    keys = []
    for name in ("pydoc", "text b", "text b"):
        facts = {"model": blueprint, "tokens": {"dataset": name, "samples": 1}}
        settled = stage.survey(FakeSite(facts=facts)).settled
        assert settled is not None and settled.config.data == name
        keys.append(settled.semantics(None))
    assert keys[0] != keys[1] == keys[2]
    assert stage.consults() >= {"tokens"}
