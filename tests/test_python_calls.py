"""Calls from Python: the same keys as the command line, objects in memory, nothing left behind."""

from __future__ import annotations

import copy
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from transformers import AutoModelForCausalLM

import pipeline
from pipeline.config.searchpath import own_configs
from pipeline.errors import StageFailed
from tests.jobs import Job, built

IDS = [list(range(start, start + 60)) for start in range(8)]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path_factory.mktemp("calls"), model=tiny_llama, text=some_text)


def options(job: Job, **more: Any) -> dict[str, Any]:
    fixed = {"device": "cpu", "runner.threads": 1, "scheme.weights.group_size": 32, "eval": "none"}
    return {
        "scheme": "w4a16",
        "modifier": "rtn",
        "store": job.folder / "store",
        "overrides": {**fixed, "verify.loader": "none", **more},
    }


def test_a_call_and_a_command_share_their_results(job: Job) -> None:
    done = job.run("command", "modifier=[rtn]", "verify.loader=none")
    given = {"dataset.num_samples": 6, "dataset.sequence_length": 64, "calibrate.batch_size": 2}
    seen: list[pipeline.Progress] = []
    result = pipeline.compress(
        job.model,
        job.text,
        **options(job, **given),
        output_dir=job.folder / "call",
        progress=seen.append,
    )
    assert (result.status, result.built) == ("ok", 0)
    assert {n["name"]: n["key"] for n in result.nodes} == {
        n["name"]: n["key"] for n in done["nodes"]
    }
    assert [p.text[:16] for p in seen if not p.node] == ["0 nodes to run, "]
    assert built(done) and result.size == done["size"]


def test_objects_are_taken_twice_in_one_process_and_leave_nothing(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(job.model)
    before = (torch.get_num_threads(), dict(os.environ), logging.getLogger().handlers[:])
    given = options(job, modifier=["gptq"]) | {"modifier": None}
    own = tmp_path / "a" / "inputs" / "mine.txt"
    own.parent.mkdir(parents=True)
    own.write_text("kept")
    first = pipeline.compress(model, IDS, **given, output_dir=tmp_path / "a")
    again = pipeline.compress(model, IDS, **given, output_dir=tmp_path / "b")
    after = (torch.get_num_threads(), dict(os.environ), logging.getLogger().handlers[:])
    assert first.built > 0 == again.built
    assert before == after
    assert own.read_text() == "kept" and not (tmp_path / "b" / "inputs").exists()
    assert not list(tmp_path.glob("*/.inputs-*")) and not (tmp_path / "outputs").exists()
    assert copy.copy(first) == first and first.checkpoint is not None
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(2)
    changed = pipeline.plan(model, IDS, **given)
    assert changed.to_run == len([n for n in changed.nodes if n["status"] == "build"]) > 0
    assert pipeline.verify(first.checkpoint).ok


def test_a_failed_call_raises_and_keeps_what_was_built(job: Job, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(progress: pipeline.Progress) -> None:
        if progress.node.startswith("compress[1]"):
            raise Stop

    given = options(job, **{"dataset.num_samples": 4, "dataset.sequence_length": 48})
    given["modifier"] = "gptq"
    with pytest.raises(Stop):
        pipeline.compress(job.model, job.text, **given, output_dir=tmp_path, progress=stop)
    assert pipeline.compress(job.model, job.text, **given, output_dir=tmp_path).reused > 3


def test_hydra_of_the_program_itself_is_left_as_it_was(job: Job) -> None:
    with initialize_config_dir(str(own_configs()), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        assert pipeline.plan(job.model, **options(job)).to_run >= 0
        assert GlobalHydra.instance().hydra is before
        assert compose("config").mode == "run"
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"scheme": "w4a17"}, "did you mean w4a16"),
        ({"model": 3}, "model is of type builtins.int"),
        ({"overrides": ["scheme.weigts=3"]}, "did you mean weights"),
        ({"overrides": ["mode=plan"]}, "compress runs"),
        ({"keep_inputs": True}, "output_dir"),
    ],
)
def test_mistakes_are_one_error_as_on_the_command_line(
    given: dict[str, Any], told: str, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pipeline.UserError, match=told):
        pipeline.compress(**{"model": job.model, **given})
    assert not (tmp_path / "outputs" / "runs").exists()


def test_a_result_shows_its_report_and_names_what_it_has(job: Job, tmp_path: Path) -> None:
    result = pipeline.compress(job.model, **options(job), output_dir=tmp_path)
    assert "&lt;html" in result._repr_html_() and "sandbox" in result._repr_html_()
    assert result == pipeline.load_result(tmp_path) and "layers" in dir(result)
    with pytest.raises(AttributeError, match="it has schema, status"):
        result.perplexity  # noqa: B018
    assert issubclass(StageFailed, pipeline.UserError)
