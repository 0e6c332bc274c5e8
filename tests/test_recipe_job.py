"""Whole runs from recipe files: the same results as the same run said in our own config."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.recipe_import import imported
from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.registry import Registry
from pipeline.runs.recorded import write_config
from tests.jobs import Job, built
from tests.pipeline.tiny import composed
from tests.stages.recipes import texts

OURS = (
    "scheme=w4a16",
    "scheme.weights.group_size=32",
    "scheme.format=null",
    "modifier=gptq",
    "modifier.gptq.block_size=64",
    "modifier.gptq.dampening_frac=0.05",
    "modifier.gptq.observer=mse",
    "modifier.gptq.refit=0",
    "modifier.gptq.descent=0",
)


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


def test_a_recipe_gives_the_bytes_of_the_same_run_in_our_words(job: Job) -> None:
    (job.folder / "recipe.yaml").write_text(texts.GPTQ_GROUPS)
    words = imported([f"recipe={job.folder / 'recipe.yaml'}"], Registry.load).overrides
    result = job.run("theirs", *words)
    assert result["status"] == "ok" and result["verify"]["ok"] is True
    assert built(job.run("ours", *OURS)) == set()
    assert job.checkpoint("ours") == job.checkpoint("theirs")
    own = job.folder / "ours" / "checkpoint" / "recipe.yaml"
    again = job.run("again", *imported([f"recipe={own}"], Registry.load).overrides)
    assert built(again) == set()
    assert job.checkpoint("again") == job.checkpoint("ours")


def test_the_config_of_a_run_needs_the_recipe_no_more(tmp_path: Path) -> None:
    recipe = tmp_path / "theirs.yaml"
    recipe.write_text(texts.SMOOTH)
    word = f"recipe={recipe}"
    given = ["mode=plan", "device=cpu", word, *imported([word], Registry.load).overrides]
    cfg = composed(
        own_configs(), *given, "modifier.smoothquant.smoothing_strength=0.7", name="config"
    )
    config = load_config(cfg, Registry.load(), overrides=given, cwd=tmp_path)
    write_config(config, tmp_path)
    recipe.unlink()
    again = load_config(composed(tmp_path, name="config"), Registry.load(), cwd=tmp_path)
    assert again.resolved == config.resolved
    smooth, gptq = again.graph.sites["compress"].stage.config.modifiers
    assert (smooth.smoothing_strength, gptq.kind) == (0.7, "gptq")
