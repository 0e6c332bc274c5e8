"""Surveys return what they found: shipped stages are immutable, and keys asked early are final."""

from __future__ import annotations

import copy
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from pipeline.config.root import Config, load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes.run import run
from pipeline.planning.expand import expand
from pipeline.registry import Registry
from tests.jobs import Job
from tests.pipeline.tiny import composed

JOBS = {
    "calibrated": ("modifier=[smoothquant,gptq]", "scheme=w8a8", "kv_cache=fp8"),
    "budget": ("scheme=auto", "calibrate.propagate=original"),
    "data_free": ("graph=data_free", "modifier=rtn", "scheme=fp8_dynamic"),
}


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


def config(job: Job, mode: str, *words: str) -> Config:
    data = ("dataset", "calibrate") if "graph=data_free" in words else ()
    given = [w for w in job.overrides(f"mode={mode}", *words) if not w.startswith(data or ("-",))]
    given.remove("scheme.weights.group_size=32")
    cfg = composed(own_configs(), *given, name="config")
    return load_config(cfg, Registry.load(), overrides=given)


def attributes(made: Config) -> dict[str, dict[str, object]]:
    return {name: copy.deepcopy(vars(site.stage)) for name, site in made.graph.sites.items()}


@pytest.mark.parametrize("name", JOBS)
def test_a_plan_changes_no_stage_and_asks_for_final_keys_only(name: str, job: Job) -> None:
    made, asked = config(job, "plan", *JOBS[name]), list[str]()
    before = attributes(made)
    graph = expand(
        made.graph.sites, mode="plan", find=asked.append, build=lambda graph, ref: None
    ).graph
    assert attributes(made) == before
    assert len(asked) >= 3 and set(asked) <= set(graph.keys.values())
    stages = [*(site.stage for site in made.graph.sites.values()), *graph.stages.values()]
    assert any(graph.stages[name] is not site.stage for name, site in made.graph.sites.items())
    for stage in stages:
        for attribute in ("config", "found_in_a_survey"):
            with pytest.raises(FrozenInstanceError):
                setattr(stage, attribute, None)


def test_a_run_changes_no_stage(job: Job) -> None:
    made = config(job, "run", *JOBS["data_free"])
    before = attributes(made)
    target = job.folder / "run"
    target.mkdir()
    assert run(made, target) == 0
    assert attributes(made) == before
