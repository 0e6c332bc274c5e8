"""Modes that look at what is there, or at what would be done, import no heavy library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.jobs import Job
from tests.pipeline.test_cli_process import TELL_IMPORTS

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.timeout(600)  # most of it is waiting for other processes


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    """A job that was run, in the folder `run`."""
    job = Job(folder=tmp_path_factory.mktemp("job"), model=tiny_llama, text=some_text)
    job.run("run")
    return job


@pytest.mark.parametrize(
    "words",
    [
        ["mode=doctor", "--help"],
        ["mode=doctor"],
        ["mode=plan"],
        # other keys: of what decides them only the model and the tokens are stored
        ["mode=plan", "device=cuda", "plan.elsewhere=true", "modifier.gptq.tf32=true"],
        ["mode=ls"],
        ["mode=gc", "gc.unreferenced=true"],
        ["mode=verify"],
        ["mode=explain", "key=modifier.gptq.tf32"],
        ["mode=report", "report.run=run"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(job: Job, words: list[str]) -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}){TELL_IMPORTS}",
            *job.overrides(*words),
        ],
        cwd=job.folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.rstrip().endswith("HEAVY []"), told.stdout + told.stderr


def test_tf32_on_a_cpu_is_an_error_before_anything_runs(job: Job) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pipeline", *job.overrides("modifier.gptq.tf32=true", "mode=plan")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert told.returncode == 1
    assert "modifier.gptq.tf32 is true, but the device is cpu" in told.stderr
    assert "say device=cuda" in told.stderr and "Traceback" not in told.stderr
