"""Sweeps on Ray: on this machine, and on a cluster of two nodes of which one is killed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.sweeps.plugin import Place

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
MEMORY = 80_000_000


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, here: Place) -> Place:
    """A place in which Ray writes no token into the user's home."""
    pytest.importorskip("ray")
    pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    own = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    own["RAY_raylet_start_wait_time_s"] = "200"
    for name, value in {**own, "PYTHONPATH": here.env["PYTHONPATH"]}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PRESSWORK_CONF", here.env["PRESSWORK_CONF"])
    here.env.update(own)
    return here


@pytest.fixture
def cluster(quiet: Place) -> Iterator[Any]:
    """A head without CPUs, so that every job runs on a node that can be killed."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY}
    )
    yield made
    made.shutdown()


def test_ray_runs_the_jobs_on_this_machine(quiet: Place) -> None:
    done = quiet.sweep("score.times=2,13,9", "hydra/launcher=ray")
    assert done.returncode == 1, done.stderr
    found = quiet.result()
    assert [row["status"] for row in found["jobs"]] == ["ok", "failed", "ok"]
    assert "thirteen cannot be scored" in done.stderr + done.stdout
    assert quiet.prefixes() == {"begun": 1, "done": 1}


def test_a_job_whose_node_is_killed_runs_on_another(quiet: Place, cluster: Any) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    cluster.wait_for_nodes()
    where = f"hydra.launcher.ray.init.address={cluster.address}"
    words = ["hydra/launcher=ray_cluster", where, "prefix.seconds=8", "score.times=2,7,9"]
    sweep = quiet.start("hydra.sweep.dir=sweep", *words)
    log = quiet.folder / "log.txt"
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    builder = int(log.read_text().split()[1])
    cluster.remove_node(owner(nodes, builder), allow_graceful=False)
    output, _ = sweep.communicate(timeout=500)
    assert sweep.returncode == 0, output
    found = quiet.result()
    assert [row["perplexity"] for row in found["jobs"]] == [24.0, 23.0, 25.0]
    assert quiet.prefixes()["done"] == 1 and quiet.prefixes()["begun"] == 2


def owner(nodes: list[Any], pid: int) -> Any:
    """The node whose raylet started a process."""
    import psutil

    parents = {parent.pid for parent in psutil.Process(pid).parents()}
    [found] = [
        node
        for node in nodes
        if parents & {each.process.pid for each in node.all_processes["raylet"]}
    ]
    return found
