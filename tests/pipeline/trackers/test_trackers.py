"""Trackers, each with its own library as the oracle, and without a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.trackers.mlflow import Mlflow
from pipeline.trackers.tracked import Tracked, demand, tracked
from pipeline.trackers.wandb import Wandb
from tests.pipeline.sweeps.folder import result
from tests.pipeline.sweeps.plugin import ROOT


@pytest.fixture
def run(tmp_path: Path) -> Tracked:
    """A run with more params than MLflow takes at once."""
    folder = tmp_path / "12-00-00-ab" / "3"
    folder.mkdir(parents=True)
    config = {
        "scheme": {"weights": {"num_bits": 4, "group_size": None}},
        "graph": {"nodes": {"load": {"kind": "load"}}},
        "many": {f"key{number}": number for number in range(150)},
    }
    found = result(300, 22.0)
    (folder / "result.json").write_text(json.dumps(found))
    (folder / "config.yaml").write_text(json.dumps(config))
    return tracked(found, config, folder)


def test_what_is_told_comes_out_of_result_and_config(run: Tracked) -> None:
    assert (run.name, run.group, run.status) == ("12-00-00-ab/3", "12-00-00-ab", "ok")
    assert run.params["scheme.weights.num_bits"] == 4
    assert not any(name.startswith("graph") for name in run.params)
    assert run.metrics["eval.perplexity.compressed"] == 22.0
    assert run.metrics["size.compressed_bytes"] == 300 and run.metrics["seconds"] == 7.0
    assert run.metrics["timings.save.seconds"] == 1.5
    assert [path.name for path in run.files] == ["result.json", "config.yaml"]


def test_a_library_that_is_missing_is_told_before_the_run() -> None:
    with pytest.raises(UserError, match=r"pip install 'presswork\[mlflow\]'"):
        demand("no_such_library", "mlflow")


def test_a_mode_that_wandb_does_not_have_is_told() -> None:
    pytest.importorskip("wandb")
    with pytest.raises(UserError, match="use one of online, offline, disabled"):
        Wandb(mode="of")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_mlflow_has_the_run_in_its_local_store(run: Tracked, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.create_experiment("mine", artifact_location=str(tmp_path / "artifacts"))
    Mlflow(uri=uri, experiment="mine").log(run)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("mine")
    [found] = client.search_runs([experiment.experiment_id])
    assert found.info.status == "FINISHED" and found.info.run_name == run.name
    assert found.data.metrics == dict(run.metrics)
    assert found.data.params["scheme.weights.num_bits"] == "4"
    assert len(found.data.params) == len(run.params) > 100
    kept = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert kept == {"result.json", "config.yaml"}


@pytest.mark.slow
def test_wandb_keeps_the_run_for_later_without_a_network(run: Tracked, tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    Wandb(mode="offline", dir=str(tmp_path)).log(run)
    [folder] = (tmp_path / "wandb").glob("offline-run-*")
    [record] = folder.glob("*.wandb")
    content = record.read_bytes()
    for text in (b"eval.perplexity.compressed", b"12-00-00-ab/3", b"scheme.weights.num_bits"):
        assert text in content
    assert {path.name for path in (folder / "files").iterdir()} >= {"result.json", "config.yaml"}


SEND_AND_READ = """
import json, sys
from pathlib import Path
from pipeline.trackers.tracked import tracked
from pipeline.trackers.trackio import Trackio
folder = Path(sys.argv[1])
found, config = (json.loads((folder / n).read_text()) for n in ("result.json", "config.yaml"))
Trackio(project="mine").log(tracked(found, config, folder))
import trackio
[run] = trackio.Api().runs("mine")
print(json.dumps({"name": run.name, "config": run.config}))
"""


@pytest.mark.slow
def test_trackio_keeps_the_run_on_this_machine(run: Tracked, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    own = {"TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SEND_AND_READ, str(run.files[0].parent)],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["name"] == run.name
    assert found["config"]["scheme.weights.num_bits"] == 4
    assert any((tmp_path / "trackio").iterdir())
