"""The main job from config to checkpoint: reuse, resume, determinism, every scheme."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from pipeline.errors import StageFailed, UserError
from pipeline.stage import Task
from stages.calibrate.stage import Calibrate
from tests.jobs import Job, built
from tests.loading import loading_options
from tests.stages.schemes.presets import NAMES

QUANTIZED = [name for name in NAMES if name not in ("none", "unquantized")]
LAYERS = 4


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    """One store for all schemes: what they have in common is built once."""
    return Job(folder=tmp_path_factory.mktemp("schemes"), model=tiny_llama, text=some_text)


@pytest.mark.parametrize("scheme", QUANTIZED)
def test_every_scheme_is_written_checked_and_loaded_by_transformers(
    shared: Job, scheme: str
) -> None:
    result = shared.run(scheme, f"scheme={scheme}", "modifier=rtn")
    assert result["status"] == "ok"
    assert result["verify"]["ok"] is True
    assert len(result["layers"]) == 7 * LAYERS
    model, loading = AutoModelForCausalLM.from_pretrained(
        shared.folder / scheme / "checkpoint",
        dtype=torch.bfloat16,
        output_loading_info=True,
        **loading_options(scheme),
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.no_grad():
        assert torch.isfinite(model(torch.arange(8)[None]).logits).all()


KINDS = ("w4a16_asym", "w8a8", "fp8", "fp8_block", "nvfp4", "mxfp4", "mxfp6a8", "mxfp4xfp8")


@pytest.mark.parametrize("scheme", [name for name in KINDS if name in NAMES])
def test_gptq_goes_with_every_kind_of_format(shared: Job, scheme: str) -> None:
    result = shared.run(f"{scheme}-gptq", f"scheme={scheme}")
    assert result["verify"]["ok"] is True
    assert {row["solver"] for row in result["layers"]} == {"gptq"}


@pytest.mark.parametrize("scheme", ["none", "unquantized"])
def test_no_quantization_copies_every_tensor(shared: Job, scheme: str) -> None:
    result = shared.run(scheme, f"scheme={scheme}", "modifier=[]")
    assert result["verify"]["ok"] is True
    assert result["layers"] == []


@pytest.mark.parametrize("modifier", ["rtn", "gptq", "[smoothquant,gptq]"])
@pytest.mark.parametrize("propagate", ["compressed", "original"])
def test_modifiers_go_with_both_ways_of_propagation(
    job: Job, modifier: str, propagate: str
) -> None:
    result = job.run(
        "run", f"modifier={modifier}", f"calibrate.propagate={propagate}", "scheme=w8a8"
    )
    assert result["verify"]["ok"] is True
    assert all(row["relative_error"] < 0.01 for row in result["layers"])
    calibrated = {name for name in built(result) if name.startswith("calibrate")}
    assert len(calibrated) == (0 if modifier == "rtn" else LAYERS)


def test_the_same_run_again_builds_nothing_and_gives_the_same_checkpoint(job: Job) -> None:
    job.run("one")
    again = job.run("two")
    assert built(again) == set()
    assert job.checkpoint("one") == job.checkpoint("two")
    assert len(again["layers"]) == 7 * LAYERS


def test_another_eval_runs_only_the_eval(job: Job) -> None:
    data = ["eval=text", f"eval.dataset.path={job.text}", "eval.dataset.num_samples=2"]
    data += ["eval.dataset.sequence_length=32", "eval.max_new_tokens=2"]
    job.run("one", *data, "eval.prompts=[abc]")
    again = job.run("two", *data, "eval.prompts=[abd]")
    assert built(again) == {"generate", "card"}  # the card waits for all who read the checkpoint
    assert again["eval"]["perplexity"]["tokens"] == 62


def test_configs_share_one_calibration_when_the_original_is_propagated(job: Job) -> None:
    shared = "calibrate.propagate=original"
    job.run("g32", shared)
    other = job.run("g16", shared, "scheme.weights.group_size=16")
    assert not {name for name in built(other) if name.startswith(("calibrate", "propagate"))}
    assert {f"compress[{k}]" for k in range(LAYERS)} <= built(other)


def test_a_transform_that_needs_another_statistic_gathers_only_that(job: Job) -> None:
    shared = "calibrate.propagate=original"
    job.run("plain", shared)
    smoothed = job.run("smooth", shared, "modifier=[smoothquant,gptq]")
    nodes = {node["name"]: node for node in smoothed["nodes"]}
    assert nodes["calibrate[0]"]["status"] == "built"
    assert nodes["calibrate[0]"]["bytes"] < 300_000


class Stopped(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize(
    "index", [pytest.param(i, marks=() if i == 3 else pytest.mark.slow) for i in range(LAYERS)]
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    job: Job, index: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run("whole", f"store.dir={job.folder / 'other'}")
    healthy = Calibrate.run

    def stopping(self: Calibrate, task: Task) -> None:
        healthy(self, task)
        if task.index == index:
            raise Stopped

    monkeypatch.setattr(Calibrate, "run", stopping)
    with pytest.raises(Stopped):
        job.run("resumed")
    monkeypatch.setattr(Calibrate, "run", healthy)
    result = job.run("resumed")
    assert f"compress[{index}]" in built(result)
    assert not {f"compress[{k}]" for k in range(index)} & built(result)
    assert job.checkpoint("resumed") == job.checkpoint("whole")


@pytest.mark.parametrize(
    "propagate", ["compressed", pytest.param("original", marks=pytest.mark.slow)]
)
def test_workers_and_stores_do_not_change_the_bytes(job: Job, propagate: str) -> None:
    how = f"calibrate.propagate={propagate}"
    job.run("one", how)
    job.run("three", how, "runner.workers=3", f"store.dir={job.folder / 'other'}")
    assert job.checkpoint("one") == job.checkpoint("three")


@pytest.mark.parametrize(
    "change",
    [pytest.param("runner.threads=2", marks=pytest.mark.slow), "calibrate.batch_size=3"],
)
def test_what_may_change_the_order_of_sums_changes_the_keys(job: Job, change: str) -> None:
    one, other = (keys(job.run(name, *more)) for name, more in [("a", ()), ("b", (change,))])
    assert not set(one["compress[1]"].values()) & set(other["compress[1]"].values())
    assert one["tokens"] == other["tokens"]


def keys(result: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {node["name"]: node["keys"] for node in result["nodes"]}


def test_a_plan_needs_no_weights_and_builds_nothing(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.plan() == 0
    shown = capsys.readouterr().out
    assert "calibrate[0-3]" in shown and "to run" in shown
    assert job.plan("plan.every_node=true") == 0
    shown = capsys.readouterr().out
    assert "calibrate[3]" in shown and "to run" in shown
    assert not any((job.folder / "store").glob("??/*"))


def test_a_failed_run_leaves_its_reason_in_the_result(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Calibrate, task: Task) -> None:
        raise UserError("the data is odd", remedy="look at it")

    monkeypatch.setattr(Calibrate, "run", broken)
    with pytest.raises(StageFailed, match=r"calibrate\[0\]: the data is odd"):
        job.run("run")
    text = (job.folder / "run" / "result.json").read_text()
    assert '"status": "failed"' in text and "the data is odd" in text
