"""A sweep's jobs are checked before the first: what cannot run is told at once, by job."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config.primary import PrimaryConfig
from pipeline.config.searchpath import register
from pipeline.errors import UserError
from pipeline.registry import Registry
from pipeline.sweeps.check import Impossible, check_jobs, told
from tests.pipeline.tiny import FILES, tiny_registry, write_files


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PrimaryConfig:
    register()
    monkeypatch.setattr(Registry, "load", staticmethod(tiny_registry))
    folder = write_files(tmp_path / "conf", FILES)
    return PrimaryConfig(folder=folder, name="tiny", overrides=())


def test_every_job_that_cannot_run_is_named_with_its_reason(
    given: PrimaryConfig, tmp_path: Path
) -> None:
    jobs = [("data.count=2",), ("data.count=0",), ("data=fwe",), ("mode=run", "data.cuont=1")]
    found = check_jobs(given, jobs, tmp_path).impossible
    assert [(job.number, job.words) for job in found] == [
        (number, jobs[number]) for number in (1, 2, 3)
    ]
    reasons = [str(job.error).splitlines()[0] for job in found]
    assert reasons[0].startswith("data.count is 0")
    assert reasons[1:] == ["data=fwe: there is no such option", "data.cuont: there is no such key"]


def test_a_sweep_whose_jobs_can_run_has_none(given: PrimaryConfig, tmp_path: Path) -> None:
    assert check_jobs(given, [("data.count=2",), ("mode=run",)], tmp_path).impossible == ()
    assert not (tmp_path / "outputs" / "runs").exists()


def test_what_several_jobs_share_is_said_once() -> None:
    same, other = UserError("too wide", remedy="narrow it"), UserError("too deep")
    found = [
        Impossible(number=number, words=(), error=error)
        for number, error in ((0, same), (2, other), (3, same))
    ]
    assert str(told(found, 4)) == (
        "3 of 4 jobs cannot run, so none was started:\n"
        "  jobs 0, 3: too wide\n    narrow it\n  job 2: too deep\n"
        "  sweep.skip_invalid=true goes on with the others"
    )
    assert "skip_invalid" not in str(told(found, 3))
