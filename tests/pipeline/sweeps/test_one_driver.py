"""One driver for all jobs of a sweep: their graphs as one, and a sweep that two processes build."""

from __future__ import annotations

import pytest

from pipeline.graph import Graph, Ref
from pipeline.stage import Stage
from pipeline.sweeps.merged import merged
from tests.pipeline.graphs import node
from tests.pipeline.sweeps.plugin import Place


def job(times: int) -> Graph:
    nodes = [
        node("load"),
        node("solve[0]", {"x": "load"}, index=0, times=times),
        node("solve[1]", {"x": "load"}, index=1),
        node("save", {"a": "solve[0]", "b": "solve[1]"}),
    ]
    stages = {each.site: Stage(config=times) for each in nodes}
    return Graph.of(nodes, [Ref(node="save", output="out")], stages)


def test_what_several_jobs_need_is_one_node() -> None:
    graphs = [job(1), job(2), job(1)]
    graph = merged(graphs)
    assert {*graph.nodes} == {
        *("load", "solve[0]", "solve[1]", "save"),
        *("solve@1[0]", "save@1"),
    }
    assert graph.targets == (Ref(node="save", output="out"), Ref(node="save@1", output="out"))
    other = graph.nodes["save@1"]
    assert other.inputs == {
        "a": Ref(node="solve@1[0]", output="out"),
        "b": Ref(node="solve[1]", output="out"),
    }
    assert (other.site, graph.stages["save@1"].config, graph.stages["save"].config) == (
        "save@1",
        2,
        1,
    )
    keys = {graphs[number].keys[Ref(node="save", output="out")] for number in (0, 1)}
    assert {graph.keys[ref] for ref in graph.targets} == keys


@pytest.mark.slow
def test_a_sweep_is_built_by_the_processes_of_one_driver(here: Place) -> None:
    words = ["hydra/launcher=presswork_ray", "runner.workers=null", "+runner.devices=[cpu,cpu]"]
    done = here.sweep("score.times=2,7,9", *words)
    assert done.returncode == 0, done.stderr
    assert "3 jobs as one: 4 nodes to run" in done.stderr
    found = here.result()
    assert [row["built"] for row in found["jobs"]] == [0, 0, 0]
    assert [row["perplexity"] for row in found["jobs"]] == [24.0, 23.0, 25.0]
    assert here.prefixes() == {"begun": 1, "done": 1}


@pytest.mark.slow
def test_a_job_that_fails_is_told_as_it_would_be_alone(here: Place) -> None:
    words = ["hydra/launcher=presswork_ray", "runner.workers=null", "+runner.devices=[cpu,cpu]"]
    done = here.sweep("score.times=2,13,9", *words)
    assert done.returncode == 1
    assert "job 1: error: score: thirteen cannot be scored" in done.stderr
    assert [row["status"] for row in here.result()["jobs"]] == ["ok", "failed", "ok"]
    assert here.prefixes() == {"begun": 1, "done": 1}
