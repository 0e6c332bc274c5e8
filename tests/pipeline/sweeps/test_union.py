"""What jobs of a sweep make for each other: outputs that some of those with a node want."""

from __future__ import annotations

from pathlib import Path

from pipeline.graph import Graph, Ref
from pipeline.store import Store, StoreConfig
from pipeline.sweeps.union import Union
from tests.pipeline import sites as fake
from tests.pipeline.graphs import node

STAGES = {"first": fake.Source(fake.Number()), "measure": fake.Step(fake.Number())}


def job(*outputs: str, value: int = 1) -> Graph:
    """A job that wants these outputs of one node."""
    made = ("carry", "sum", "range")
    nodes = [node("first"), node("measure", {"source": "first"}, outputs=made, value=value)]
    return Graph.of(nodes, [Ref(node="measure", output=output) for output in outputs], STAGES)


def shared(tmp_path: Path, *jobs: Graph, keep: bool = False) -> set[str]:
    """Names of what is shared among jobs, of the node of the first."""
    union = Union()
    for graph in jobs:
        union.add(graph, Store(StoreConfig(dir=str(tmp_path / "store"))), keep=keep)
    names = {key: ref.output for ref, key in jobs[0].keys.items() if ref.node == "measure"}
    return {names.get(key, "of another node") for key in union.shared()}


def test_what_only_some_of_the_jobs_want_is_made_by_all_that_run_the_node(tmp_path: Path) -> None:
    assert shared(tmp_path, job("sum"), job("range", "sum")) == {"range"}
    assert shared(tmp_path, job("sum"), job("range"), job("sum")) == {"sum", "range"}
    assert shared(tmp_path, job("sum"), job("sum")) == set()
    assert shared(tmp_path, job("sum")) == set()


def test_jobs_with_other_inputs_have_nothing_for_each_other(tmp_path: Path) -> None:
    assert shared(tmp_path, job("sum"), job("range", value=2)) == set()


def test_what_a_job_drops_is_no_good_to_others(tmp_path: Path) -> None:
    assert shared(tmp_path, job("sum"), job("carry", "sum")) == set()
    assert shared(tmp_path, job("sum"), job("carry", "sum"), keep=True) == {"carry"}
