"""Whole jobs whose layers are built by several processes: the same keys, the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import Job
from tests.pipeline.runner.chains import store_at


@pytest.mark.slow
@pytest.mark.parametrize("propagate", ["original", "compressed"])
def test_two_processes_make_the_checkpoint_of_one(
    tmp_path: Path, tiny_llama: Path, some_text: Path, propagate: str
) -> None:
    made = []
    for name, more in (("one", ()), ("two", ("runner.devices=[cpu,cpu]",))):
        (tmp_path / name).mkdir()
        job = Job(folder=tmp_path / name, model=tiny_llama, text=some_text)
        result = job.run("run", f"calibrate.propagate={propagate}", *more)
        assert result["status"] == "ok"
        keys = {entry.key for entry in store_at(job.folder / "store").entries()}
        made.append((keys, job.checkpoint("run")))
    assert made[0] == made[1]
