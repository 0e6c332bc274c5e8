"""The experiments that ship, run on a tiny model: each does what its first line says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline.config.searchpath import own_configs
from tests.jobs import Job, built

FOLDER = own_configs() / "experiment"
LAYERS = 4


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


def schemes(experiment: str) -> list[str]:
    content: Any = OmegaConf.load(FOLDER / f"{experiment}.yaml")
    return str(content.hydra.sweeper.params.scheme).split(",")


def judged(job: Job) -> list[str]:
    data = ["eval=text", f"eval.dataset.path={job.text}", "eval.dataset.num_samples=3"]
    return [*data, "eval.dataset.sequence_length=32", "eval.prompts=[]"]


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["nvfp4_mxfp4", "int4_fp8"])
def test_schemes_are_compared_with_one_calibration(job: Job, experiment: str) -> None:
    results = {}
    for scheme in schemes(experiment):
        words = (f"+experiment={experiment}", f"scheme={scheme}", *judged(job))
        results[scheme] = job.run(scheme, *words)
    first, *others = results.values()
    assert {f"calibrate[{k}]" for k in range(LAYERS)} <= built(first)
    for other in others:
        assert not {name for name in built(other) if name.startswith("hidden_original")}
        again = {n["name"]: n["bytes"] for n in other["nodes"] if n["status"] == "built"}
        assert sum(v for name, v in again.items() if name.startswith("calibrate")) < 100_000
    assert len({r["eval"]["perplexity"]["original"] for r in results.values()}) == 1
    assert len({r["size"]["compressed_bytes"] for r in results.values()}) == len(results)


@pytest.mark.slow
def test_int8_smoothquant_smooths_and_solves(job: Job) -> None:
    result = job.run("run", "+experiment=int8_smoothquant", "scheme=w8a8")
    found = {(row["scheme"], row["solver"]) for row in result["layers"]}
    assert found == {("W8A8 channel", "gptq")}


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["small_machine", "big_model"])
def test_a_profile_goes_with_any_job(job: Job, profile: str) -> None:
    result = job.run("run", f"+experiment={profile}", "modifier=rtn")
    assert result["verify"]["ok"] is True


@pytest.mark.slow
def test_group_sizes_share_one_calibration(job: Job) -> None:
    job.run("g32", "+experiment=group_sizes")
    other = job.run("g64", "+experiment=group_sizes", "scheme.weights.group_size=64")
    assert not {name for name in built(other) if name.startswith("calibrate")}


def test_every_experiment_is_run_by_a_test_here() -> None:
    text = Path(__file__).read_text()
    assert [p.stem for p in FOLDER.glob("*.yaml") if p.stem not in text] == []
