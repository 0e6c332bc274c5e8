"""Workers in result.json and on the page: what each built, and how long it was idle."""

from __future__ import annotations

from pathlib import Path

from pipeline.report.html import render
from pipeline.report.result import assemble
from pipeline.report.workers import worker_lanes
from tests.pipeline.report.sample import node, sample_run
from tests.pipeline.report.test_result import run_of


def test_workers_are_busy_and_idle_between_the_first_node_and_the_last() -> None:
    result = assemble(
        run_of(
            node("load", 5.0, started=990.0),
            node("a", 2.0, started=1000.0, worker="cuda:0"),
            node("b", 3.0, started=1001.0, worker="cuda:1"),
            node("c", 1.5, started=1002.5, worker="cuda:0"),
        )
    )
    assert result["workers"] == [
        {"name": "cuda:0", "nodes": 2, "busy_seconds": 3.5, "idle_seconds": 0.5},
        {"name": "cuda:1", "nodes": 1, "busy_seconds": 3.0, "idle_seconds": 1.0},
    ]
    first, second = worker_lanes(result)
    assert [span.title for span in first.spans] == ["a, 2.00 s", "c, 1.50 s"]
    assert (second.spans[0].start, second.spans[0].width) == (0.2, 0.6)


def test_a_run_of_one_process_has_no_workers() -> None:
    result = assemble(run_of(node("load", 5.0)))
    assert result["workers"] == [] and worker_lanes(result) == []
    del result["workers"]
    assert worker_lanes(result) == []


def test_the_page_shows_each_worker(tmp_path: Path) -> None:
    result = assemble(sample_run(tmp_path))
    result["nodes"][1] |= {"worker": "ray#0 on <rack>", "status": "built", "started": 0.1}
    result["workers"] = [
        {"name": "ray#0 on <rack>", "nodes": 1, "busy_seconds": 61.0, "idle_seconds": 2.0}
    ]
    page = render(result, {})
    assert "worker ray#0 on &lt;rack&gt;" in page and "idle for 2.00 s" in page
