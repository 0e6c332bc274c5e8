"""Learned rounding as a whole job: never worse, the same by seed, GPTQ without steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import UserError
from pipeline.modes.run import run
from pipeline.registry import Registry
from tests.families.dense import DENSE
from tests.families.experts import EXPERTS
from tests.families.tiny import write
from tests.jobs import Job, built
from tests.pipeline.tiny import composed

SHORT = (
    "modifier=autoround",
    "modifier.autoround.iterations=16",
    "modifier.autoround.lr=0.05",
)
LAYERS = 4


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    """One store for all tests: what they have in common is built once."""
    return Job(folder=tmp_path_factory.mktemp("learned"), model=tiny_llama, text=some_text)


@pytest.fixture(scope="module")
def learned(job: Job) -> dict[str, Any]:
    return job.run("learned", *SHORT)


def test_a_layer_is_never_worse_on_the_sequences_it_learned_from(learned: dict[str, Any]) -> None:
    assert learned["status"] == "ok" and learned["verify"]["ok"]
    assert {row["solver"] for row in learned["layers"]} == {"autoround"}
    assert len(learned["learning"]) == LAYERS
    for row in learned["learning"]:
        assert 0 < row["after"] <= row["before"] and row["iterations"] == 16
        assert (row["kept"] > 0) == (row["after"] < row["before"])
    assert any(row["kept"] for row in learned["learning"])
    page = (Path(learned["checkpoint"]).parent / "report.html").read_text()
    assert "Learned rounding" in page


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(
    job: Job, learned: dict[str, Any], tmp_path: Path
) -> None:
    again = Job(folder=tmp_path, model=job.model, text=job.text)
    assert again.run("learned", *SHORT)["learning"] == learned["learning"]
    weights = {
        name: sha for name, sha in job.checkpoint("learned").items() if "safetensors" in name
    }
    assert weights.items() <= again.checkpoint("learned").items()
    other = again.run("other", *SHORT, "modifier.autoround.seed=1")
    assert other["learning"] != learned["learning"]


@pytest.mark.slow
def test_without_steps_it_is_gptq_to_the_bit(job: Job) -> None:
    plain, none = (
        job.run("gptq", "modifier=gptq"),
        job.run("none", "modifier=autoround", "modifier.autoround.iterations=0"),
    )
    assert none["learning"] == [] and not any("reference" in name for name in built(none))
    assert [row["relative_error"] for row in none["layers"]] == [
        row["relative_error"] for row in plain["layers"]
    ]
    one, other = job.checkpoint("gptq"), job.checkpoint("none")
    assert {n: sha for n, sha in one.items() if "safetensors" in n} == {
        n: sha for n, sha in other.items() if "safetensors" in n
    }


@pytest.mark.slow
def test_original_statistics_are_shared_with_gptq(job: Job) -> None:
    """With calibrate.propagate=original the target is calibration's own work."""
    original = "calibrate.propagate=original"
    shared = job.run("gptq_original", "modifier=gptq", original)
    assert "calibrate[0]" in built(shared)
    result = job.run("learned_original", *SHORT, original)
    gathered = {name for name in built(result) if name.startswith("calibrate[")}
    assert len(result["learning"]) == LAYERS and not gathered


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", ["nvfp4", "mxfp4", "w4a16_asym", "w4a4", "w8a8", "fp8_block", "nvfp4a16", "w2a16"]
)
def test_it_goes_with_every_kind_of_format(job: Job, scheme: str) -> None:
    result = job.run(scheme, f"scheme={scheme}", "modifier=autoround", "dataset.num_samples=24")
    assert result["verify"]["ok"]
    assert len(result["learning"]) == LAYERS
    assert any(row["after"] < row["before"] for row in result["learning"])


@pytest.mark.slow
def test_after_smoothing_and_from_rounding(job: Job) -> None:
    words = ("modifier=[smoothquant,autoround]", "scheme=w8a8", *SHORT[1:])
    result = job.run("smoothed", *words, "modifier.autoround.start=rtn")
    assert result["verify"]["ok"] and len(result["learning"]) == LAYERS


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "gemma3n_text"])
def test_experts_and_layers_that_hand_several_tensors_on(
    family: str, tmp_path: Path, some_text: Path
) -> None:
    """Gemma 3n's layers share keys and values, and read states that stand side by side."""
    case = next(case for case in (*DENSE, *EXPERTS) if case.name == family)
    job = Job(folder=tmp_path, model=write(case, tmp_path / "model"), text=some_text)
    result = job.run("run", *SHORT, "modifier.autoround.iterations=4")
    assert result["verify"]["ok"]
    assert {row["solver"] for row in result["layers"]} == {"autoround"}
    assert all(0 < row["after"] <= row["before"] for row in result["learning"])
    assert any(row["kept"] for row in result["learning"])


def test_what_cannot_learn_is_refused(job: Job) -> None:
    given = ["graph=data_free", "model=local", f"model.path={job.model}", "eval=none", *SHORT]
    free = load_config(composed(own_configs(), *given, name="config"), Registry.load())
    with pytest.raises(UserError, match="outlines the model from its tensor names"):
        run(free, job.folder)
    with pytest.raises(UserError, match="holds sequences out"):
        job.run("one", *SHORT, "modifier.autoround.held_out=0.1", "dataset.num_samples=1")
    with pytest.raises(UserError, match=r"compress its target"):
        job.run("unwired", *SHORT, "~graph.nodes.compress.inputs.target")
    with pytest.raises(UserError, match="learns other codes for the zeros of 'wanda'"):
        job.run("pruned", "modifier=[wanda,autoround]", *SHORT[1:])
    with pytest.raises(UserError, match="block_size is set, but start is rtn"):
        job.run("idle", *SHORT, "modifier.autoround.start=rtn", "modifier.autoround.block_size=64")
