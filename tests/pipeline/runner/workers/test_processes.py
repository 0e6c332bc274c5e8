"""Workers that are processes of this machine: what they build, and what becomes of a dead one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest

from pipeline.errors import StageFailed
from pipeline.graph import Graph
from pipeline.runner.local import LocalRunner
from pipeline.runner.workers.crew import crew_of
from pipeline.store import Store
from tests.pipeline.runner.chains import graph_of, runner_for, store_at
from tests.pipeline.runner.test_local import Quiet
from tests.pipeline.runner.workers.fakes import Trouble, noted_graph, runs
from tests.pipeline.store.conftest import leftovers


def with_processes(store: Store, watcher: Quiet | None = None) -> LocalRunner:
    return LocalRunner(
        store,
        workers=None,
        keep_transient=False,
        watcher=watcher or Quiet(),
        crews=lambda: nullcontext(crew_of(["cpu", "cpu"])),
    )


def files(store: Store) -> dict[str, dict[str, str]]:
    """Key -> the sha256 of each file."""
    found = (store.get(entry.key) for entry in store.entries())
    return {
        artifact.key: {name: file.sha256 for name, file in artifact.manifest.files.items()}
        for artifact in found
        if artifact is not None
    }


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def test_processes_build_the_same_bytes_and_leave_nothing_behind(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 20)
    monkeypatch.setenv("OMP_SECRET_TOKEN", "b" * 20)
    alone, store = store_at(tmp_path / "alone"), store_at(tmp_path / "store")
    runner_for(alone).run(noted_graph(alone, Trouble(notes=str(notes))))
    [path.unlink() for path in notes.iterdir()]

    runner = with_processes(store)
    runner.run(noted_graph(store, Trouble(notes=str(notes))))

    assert files(store) == files(alone)
    assert leftovers(store) == leftovers(alone)
    assert set(runs(notes).values()) == {1}
    workers = {name: runner.outcomes[name].worker for name in runs(notes)}
    assert workers.pop("in_driver") == ""
    assert set(workers.values()) <= {"cpu#0", "cpu#1"}
    told = {path.name: path.read_text().split() for path in notes.iterdir()}
    here = told.pop("in_driver")
    assert here[0] == str(os.getpid()) and "HF_TOKEN" in here
    for pid, *variables in told.values():
        assert pid != here[0] and "PATH" in variables
        assert not {"HF_TOKEN", "OMP_SECRET_TOKEN", "PYTEST_CURRENT_TEST"} & {*variables}


@pytest.mark.slow
def test_contents_in_the_memory_of_workers_reach_each_other(tmp_path: Path) -> None:
    alone, store = store_at(tmp_path / "alone"), store_at(tmp_path / "store", every=2)
    runner_for(alone).run(graph_of(alone, 6))
    runner = with_processes(store)
    runner.run(graph_of(store, 6))
    assert files(store) == files(alone)
    assert runner.passing["copied_bytes"] > 0
    assert leftovers(store) == leftovers(alone)


@pytest.mark.slow
def test_a_node_that_fails_for_its_own_reason_fails_once(tmp_path: Path, notes: Path) -> None:
    store = store_at(tmp_path / "store")
    trouble = Trouble(notes=str(notes), node="noted[2]", fail=True)
    with pytest.raises(StageFailed, match=r"^noted\[2\]: there is no bottom\n  look for one$"):
        with_processes(store).run(noted_graph(store, trouble))
    assert runs(notes) == {"noted[0]": 1, "noted[1]": 1, "noted[2]": 1}
    assert not [*store.layout.tmp.iterdir()]


def killed(store: Store, notes: Path, kills: int) -> tuple[Graph, Quiet]:
    graph = noted_graph(store, Trouble(notes=str(notes), node="noted[2]", kills=kills))
    watcher = Quiet()
    with_processes(store, watcher).run(graph)
    return graph, watcher


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nothing_else_is_built_again(
    tmp_path: Path, notes: Path
) -> None:
    store = store_at(tmp_path / "store")
    _, watcher = killed(store, notes, 2)
    assert runs(notes) == {
        **{"noted[0]": 1, "noted[1]": 1, "noted[2]": 3, "noted[3]": 1},
        "in_driver": 1,
    }
    warnings = [text for text in watcher.messages if "signal 9" in text]
    assert len(warnings) == 2 and "while it built noted[2]" in warnings[0]


def run_to_be_killed(root: Path, notes: Path) -> None:
    store = store_at(root)
    with_processes(store).run(
        noted_graph(store, Trouble(notes=str(notes), node="noted[2]", waits=60))
    )
    os._exit(0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_their_driver_and_a_new_one_goes_on(
    tmp_path: Path, notes: Path, how: signal.Signals
) -> None:
    alone, store = store_at(tmp_path / "alone"), store_at(tmp_path / "store")
    driver = multiprocessing.get_context("fork").Process(
        target=run_to_be_killed, args=(tmp_path / "store", notes)
    )
    driver.start()
    deadline = time.monotonic() + 60
    while "noted[2]" not in runs(notes) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = {int(path.read_text().split()[0]) for path in notes.iterdir()} - {os.getpid()}
    os.kill(driver.pid or 0, how)
    driver.join()
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers and not any(map(psutil.pid_exists, workers))
    graph = noted_graph(store, Trouble(notes=str(notes)))
    with_processes(store).run(graph)
    runner_for(alone).run(noted_graph(alone, Trouble(notes=str(tmp_path))))
    assert files(store) == files(alone) and leftovers(store) == leftovers(alone)


@pytest.mark.slow
def test_a_node_that_ends_its_worker_again_and_again_is_given_up(
    tmp_path: Path, notes: Path
) -> None:
    store = store_at(tmp_path / "store")
    with pytest.raises(StageFailed, match=r"signal 9\) while it built noted\[2\], as 2 did before"):
        killed(store, notes, 9)
    assert runs(notes)["noted[2]"] == 3
