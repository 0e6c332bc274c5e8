"""Garbage collection that frees all it may, over and over, beside a run: nothing of it is lost."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.modes import run as running
from pipeline.runner.local import LocalRunner
from pipeline.runner.node_builder import NodeBuilder
from pipeline.store import Store, StoreConfig, collect, publish
from tests.jobs import built
from tests.test_data_free import Disk, disk


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path) -> Disk:
    return disk(tmp_path, tiny_llama)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run folders lie on another file system than the store, which takes no links from there."""
    monkeypatch.setattr(publish, "link", lambda source, target: False)


def emptied(job: Disk) -> int:
    """Free all that may be freed; how many artifacts that were."""
    store = Store(StoreConfig(dir=str(job.folder / "store")))
    return len(collect(store, max_bytes=0, dry_run=False).entries)


@contextmanager
def collecting(job: Disk, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Collect without a pause until the next report is written; what that freed each time."""
    done, counts = threading.Event(), list[int]()

    def work() -> None:
        while not done.wait(0.001):
            counts.append(emptied(job))

    thread = threading.Thread(target=work)
    write = running.write_reports

    def last(record: Any) -> Any:
        result = write(record)
        done.set()
        thread.join()
        return result

    monkeypatch.setattr(running, "write_reports", last)
    thread.start()
    try:
        yield counts
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("elsewhere")
def test_nothing_that_a_run_builds_is_freed_before_it_is_published(
    job: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting(job, monkeypatch) as counts:
        result = job.run("run", "scheme=fp8_dynamic")
    names = [node["name"] for node in result["nodes"] if node["status"] == "built"]
    assert result["status"] == "ok" and {"load", "compress[0]", "save", "verify"} <= set(names)
    assert len(counts) > 5 and sum(counts) == 0
    assert {row["name"] for row in result["layers"]}  # the report read what the layers say
    assert emptied(job) > 0 and job.checkpoint("run")


@pytest.mark.usefixtures("elsewhere")
def test_what_a_run_finds_stays_until_its_report_is_written(
    job: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    freed: dict[str, int] = {}

    def then(name: str, owner: Any, function: str) -> None:
        original = getattr(owner, function)

        def disturbed(*given: Any, **named: Any) -> Any:
            freed[name] = freed.get(name, 0) + emptied(job)
            return original(*given, **named)

        monkeypatch.setattr(owner, function, disturbed)

    then("plan", LocalRunner, "_note_hits")
    then("node", NodeBuilder, "_run_stage")
    then("publish", publish, "fill")
    then("report", running, "write_reports")
    before = job.run("run", "scheme=fp8_dynamic")
    assert freed == {"plan": 0, "node": 0, "publish": 0, "report": 0}
    result = job.run("again", "scheme=fp8_dynamic")
    assert freed == {"plan": 0, "node": 0, "publish": 0, "report": 0}
    assert built(result) == set() and job.checkpoint("again") == job.checkpoint("run")
    assert result["layers"] == before["layers"]


@pytest.mark.slow
def test_a_bounded_store_is_bounded_once_the_run_is_reported(job: Disk) -> None:
    result = job.run("run", "scheme=fp8_dynamic", "store.max_bytes=0")
    assert result["layers"] and job.checkpoint("run")
    assert not [*Store(StoreConfig(dir=str(job.folder / "store"))).entries()]
    assert os.listdir(job.folder / "store" / "live") == []
