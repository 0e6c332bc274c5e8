"""Whole calibrated runs: what passes from layer to layer stays in memory, and changes no bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.store import Store, StoreConfig
from pipeline.store.draft import StoredDraft
from stages.formats.layer_artifact import SHARD
from tests.jobs import Job, built

LAYERS = 4


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


@pytest.fixture
def committed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """NODE.OUTPUT/FILE of every file of activations and statistics that went into the store."""
    seen: list[str] = []
    real = StoredDraft.put

    def put(self: StoredDraft, name: str, content: object) -> None:
        if type(self) is StoredDraft and name != SHARD:
            seen.append(f"{self.label}/{name}")
        real(self, name, content)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredDraft, "put", put)
    return seen


def store_of(job: Job) -> Store:
    return Store(StoreConfig(dir=str(job.folder / "store")))


def test_neither_activations_nor_statistics_reach_the_store(job: Job, committed: list[str]) -> None:
    job.run("run")
    assert committed == []
    kinds = {entry.kind for entry in store_of(job).entries()}
    assert kinds == {"load", "patch", "prove", "tokens", "compress", "save", "verify"}


def test_of_every_second_boundary_there_is_a_copy_and_nothing_else(
    job: Job, committed: list[str]
) -> None:
    job.run("run", "store.copy_every=2")
    # two at most: of layer 1, and of none after it, for nothing reads what layer 3 hands on
    assert {name.partition("/")[0] for name in committed} <= {"propagate[1].activations"}
    assert not [e for e in store_of(job).entries() if e.kind in ("calibrate", "propagate")]


def test_statistics_of_original_layers_are_stored_since_other_configs_share_them(
    job: Job, committed: list[str]
) -> None:
    job.run("run", "calibrate.propagate=original")
    assert {name.partition(".")[2] for name in committed} == {"gram/gram.safetensors"}
    job.run("again", "calibrate.propagate=original", "scheme.weights.group_size=64")
    assert len(committed) == LAYERS


@pytest.mark.parametrize(
    "more",
    [
        pytest.param("calibrate.memory=0", id="disk", marks=pytest.mark.slow),
        pytest.param("calibrate.memory=60000", id="both"),
    ],
)
def test_where_it_lies_changes_no_byte(job: Job, tmp_path: Path, more: str) -> None:
    job.run("run", "kv_cache=fp8")
    other = Job(folder=tmp_path / "other", model=job.model, text=job.text)
    other.folder.mkdir()
    other.run("run", "kv_cache=fp8", more)
    assert other.checkpoint("run") == job.checkpoint("run")


def test_a_plan_says_what_will_be_held(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.plan("calibrate.memory=50_000")
    text = " ".join(capsys.readouterr().out.split())
    assert "Between nodes: at most 50.0 kB stay in memory, of 50.0 kB that calibrate.memory" in text
    assert "on the disk; no copies" in text


def test_a_run_that_failed_goes_on_from_its_newest_boundary(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.errors import StageFailed
    from pipeline.stage import Task
    from stages.compress.stage import Compress

    real = Compress.run

    def fails(self: Compress, task: Task) -> None:
        if task.index == 2:
            raise StageFailed("broken")
        real(self, task)

    monkeypatch.setattr(Compress, "run", fails)
    with pytest.raises(StageFailed):
        job.run("failed")
    monkeypatch.setattr(Compress, "run", real)
    again = built(job.run("again"))
    assert "compress[1]" not in again and "propagate[1]" not in again
    assert {"calibrate[2]", "compress[2]", "propagate[2]"} <= again


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_with_the_same_bytes_and_solves_nothing_twice(
    job: Job, tmp_path: Path
) -> None:
    job.run("reference")
    place = Job(folder=tmp_path / "killed", model=job.model, text=job.text)
    place.folder.mkdir()
    before: set[str] = set()
    for attempt, ending in enumerate(endings()):
        code = ending(place, f"run-{attempt}")
        now = {entry.node for entry in store_of(place).entries() if entry.kind == "compress"}
        assert before <= now
        before = now
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert place.checkpoint(f"run-{attempt}") == job.checkpoint("reference")
    solved = [
        line
        for log in sorted(place.folder.glob("run-*/run.log"))
        for line in log.read_text().splitlines()
        if " built compress[" in line
    ]
    names = [line.split(" built ")[1].split()[0] for line in solved]
    assert len(names) == len(set(names)) <= LAYERS
    assert store_of(place).verify(repair=False) == []


def endings() -> Iterator[object]:
    """Runs that are killed when `name` is built, and at last one that is not."""
    for name in ("compress[0]", "propagate[0]", "calibrate[1]", "propagate[2]", None):
        yield lambda job, run, name=name: run_until(job, run, name)


def run_until(job: Job, run: str, name: str | None) -> int:
    words = [f"hydra.run.dir={job.folder / run}", *job.overrides("store.copy_every=1")]
    command = [sys.executable, "-m", "pipeline", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    log = job.folder / run / "run.log"
    while process.poll() is None:
        if name and log.exists() and f" built {name} in" in log.read_text():
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.01)
    return process.wait()
