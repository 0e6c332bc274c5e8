"""Runs on a store that cannot be written, and into a run folder that cannot."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config.root import Config, load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import UserError
from pipeline.modes.ls import ls
from pipeline.modes.verify import verify
from pipeline.registry import Registry
from pipeline.runs.folders import check_writable
from tests.jobs import built
from tests.pipeline.tiny import composed
from tests.sealed import sealed
from tests.test_data_free import Disk, disk


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path) -> Disk:
    return disk(tmp_path, tiny_llama)


def config_of(job: Disk) -> Config:
    given = job.overrides()
    cfg = composed(own_configs(), *given, name="config")
    return load_config(cfg, Registry.load(), overrides=given)


def test_a_store_that_cannot_be_written_is_hit_listed_planned_from_and_verified(
    job: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    first = job.run("run")
    with sealed(job.folder / "store"):
        result = job.run("again")
        assert result["status"] == "ok" and built(result) == set()
        assert result["layers"] == first["layers"]
        assert job.checkpoint("again") == job.checkpoint("run")
        capsys.readouterr()
        config = config_of(job)
        assert ls(config, job.folder) == 0 and verify(config, job.folder) == 0
        assert job.plan() == 0
        told = capsys.readouterr().out
        assert "artifacts in" in told and "are whole" in told and "0 nodes to run" in told
        with pytest.raises(UserError, match=r"the store .* cannot be created or written"):
            job.run("other", "scheme=fp8_dynamic")


def test_a_run_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert not [*tmp_path.iterdir()]
    with (
        sealed(tmp_path),
        pytest.raises(UserError, match=f"the run folder {tmp_path} cannot be written: "),
    ):
        check_writable(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("below", ["", "deeper"])
def test_it_is_told_before_anything_runs(tmp_path: Path, below: str) -> None:
    (tmp_path / "run").mkdir()
    with sealed(tmp_path / "run") as folder:
        words = [f"hydra.run.dir={folder / below}", f"store.dir={tmp_path / 'store'}"]
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *words], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1 and "hydra.run.dir=DIR" in done.stderr
    assert str(folder) in done.stderr and not (tmp_path / "store").exists()
