"""A chain of members as a calibration makes it, on fake stages, with a runner of its own."""

from __future__ import annotations

from pathlib import Path

from pipeline.graph import Graph, Ref
from pipeline.planning.expand import expand
from pipeline.planning.site import SitePlan
from pipeline.runner.local import LocalRunner
from pipeline.store import Store, StoreConfig
from tests.pipeline import sites as fake
from tests.pipeline.runner.test_local import Quiet, site


def chain_sites(count: int, blobs: fake.Blobs) -> dict[str, SitePlan]:
    """solve[k] reads what hand[k-1] passed on, hand[k] what both of them left."""
    made = [
        site(fake.Source(fake.Number(value=1))),
        site(fake.Lister(fake.Count(count=count)), {"source": "source"}),
        site(fake.Solve(fake.Number()), {"before": "hand@previous"}, each="lister"),
        site(fake.Hand(blobs), {"solved": "solve", "before": "hand@previous"}, each="lister"),
        site(fake.Word(fake.Number()), {"solved": "solve"}, final=True),
    ]
    return {plan.name: plan for plan in made}


def store_at(folder: Path, *, every: int = 100, seconds: float = 1e6, lock: str = "flock") -> Store:
    config = StoreConfig(dir=str(folder), copy_every=every, copy_seconds=seconds, lock=lock)
    return Store(config)


def graph_of(store: Store, count: int, blobs: fake.Blobs | None = None) -> Graph:
    sites = chain_sites(count, blobs or fake.Blobs())
    return expand(sites, mode="run", find=store.get, build=runner_for(store).result).graph


def runner_for(store: Store, *, workers: int = 1, keep: bool = False) -> LocalRunner:
    return LocalRunner(store, workers=workers, keep_transient=keep, watcher=Quiet())


def word(
    store: Store,
    count: int = 4,
    blobs: fake.Blobs | None = None,
    *,
    workers: int = 1,
    keep: bool = False,
) -> str:
    """Run a chain to its end: `abcd` for four members."""
    graph = graph_of(store, count, blobs)
    runner_for(store, workers=workers, keep=keep).run(graph)
    artifact = store.get(graph.keys[Ref(node="word", output="out")])
    assert artifact is not None
    return str(artifact.json("value.json"))


def passed(store: Store) -> list[str]:
    """Nodes whose transient result is in the store."""
    return [entry.node for entry in store.entries() if entry.output == "passed"]


def calls(site_name: str) -> list[str]:
    """The nodes of a site that ran, in order."""
    return [name for name in fake.CALLS if name.startswith(f"{site_name}[")]
