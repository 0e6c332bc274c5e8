"""Workers of a Ray cluster: what they build, killed workers and nodes, the driver's environment."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.errors import StageFailed
from pipeline.runner.local import LocalRunner
from pipeline.runner.workers.ray_cluster import Cluster
from pipeline.store import Store
from tests.pipeline.runner.chains import graph_of, runner_for, store_at
from tests.pipeline.runner.test_local import Quiet
from tests.pipeline.runner.workers.fakes import Trouble, noted_graph, runs
from tests.pipeline.runner.workers.test_processes import files
from tests.pipeline.store.conftest import leftovers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
MEMORY = 80_000_000


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray writes no token into the user's home."""
    pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


def with_ray(store: Store, address: str | None = None, watcher: Quiet | None = None) -> LocalRunner:
    crews = Cluster(address=address, workers=2, threads=1, device="cpu").crew
    return LocalRunner(
        store, workers=None, keep_transient=False, watcher=watcher or Quiet(), crews=crews
    )


def test_a_cluster_of_this_machine_builds_the_same_bytes(
    tmp_path: Path, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 20)
    alone, store = store_at(tmp_path / "alone"), store_at(tmp_path / "store", every=2)
    for graph in (graph_of(alone, 6), noted_graph(alone, Trouble(notes=str(notes)))):
        runner_for(alone).run(graph)
    [path.unlink() for path in notes.iterdir()]
    runner = with_ray(store)
    runner.run(graph_of(store, 6))
    assert runner.passing["copied_bytes"] > 0 and runner.passing["held_bytes"] > 0
    runner.run(noted_graph(store, Trouble(notes=str(notes))))
    assert files(store) == files(alone)
    assert leftovers(store) == leftovers(alone)
    assert set(runs(notes).values()) == {1}
    for path in notes.iterdir():
        assert ("HF_TOKEN" in path.read_text().split()) == (path.name == "in_driver")
    assert runner.outcomes["noted[3]"].worker.startswith("ray#")


def test_a_node_that_fails_for_its_own_reason_fails_once(tmp_path: Path, notes: Path) -> None:
    store = store_at(tmp_path / "store")
    trouble = Trouble(notes=str(notes), node="noted[2]", fail=True)
    with pytest.raises(StageFailed, match=r"^noted\[2\]: there is no bottom\n  look for one$"):
        with_ray(store).run(noted_graph(store, trouble))
    assert runs(notes) == {"noted[0]": 1, "noted[1]": 1, "noted[2]": 1}


def test_a_killed_worker_is_replaced(tmp_path: Path, notes: Path) -> None:
    store, watcher = store_at(tmp_path / "store"), Quiet()
    graph = noted_graph(store, Trouble(notes=str(notes), node="noted[2]", kills=1))
    with_ray(store, watcher=watcher).run(graph)
    assert runs(notes) == {
        **{"noted[0]": 1, "noted[1]": 1, "noted[2]": 2, "noted[3]": 1},
        "in_driver": 1,
    }
    assert any("while it built noted[2]" in text for text in watcher.messages)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, so that all workers are on nodes that can be killed."""
    from ray.cluster_utils import Cluster as Machines

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "200")
    made = Machines(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY}
    )
    yield made
    made.shutdown()


def test_a_lost_machine_costs_what_it_alone_had(tmp_path: Path, notes: Path, cluster: Any) -> None:
    machines = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    cluster.wait_for_nodes()
    alone, store = store_at(tmp_path / "alone"), store_at(tmp_path / "store")
    runner_for(alone).run(noted_graph(alone, Trouble(notes=str(notes))))
    [path.unlink() for path in notes.iterdir()]
    watcher = Quiet()

    def stop_the_machine() -> None:
        deadline = time.monotonic() + 200
        while not (notes / "noted[2]").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        builder = int((notes / "noted[2]").read_text().split()[0])
        above = {process.pid for process in psutil.Process(builder).parents()}
        for machine in machines:
            if {at.process.pid for at in machine.all_processes["raylet"]} & above:
                cluster.remove_node(machine, allow_graceful=False)

    killer = threading.Thread(target=stop_the_machine)
    killer.start()
    graph = noted_graph(store, Trouble(notes=str(notes), node="noted[2]", waits=3.0))
    with_ray(store, cluster.address, watcher).run(graph)
    killer.join()
    assert files(store) == files(alone)
    assert runs(notes)["noted[2]"] == 2 and runs(notes)["noted[3]"] == 1
    assert any("while it built noted[2]" in text for text in watcher.messages)
