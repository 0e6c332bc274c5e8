"""Report sections: their order, what they may declare, and one that a package registers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from pipeline.errors import UserError
from pipeline.registry import Registry
from pipeline.report.html import render
from pipeline.report.result import assemble
from pipeline.report.section import Metric, Section, metrics, sections
from pipeline.sweeps.pareto import measure
from pipeline.trackers.tracked import tracked
from tests.pipeline.report.sample import node, sample_run

DRIFT = Metric(field="drift", path="drift.mean", title="drift", direction="maximize")


def register(monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    """Make a section known beside those of the stages, until the test is over."""
    registry = Registry.load()
    registry.entries["report"]["drift"] = Section(**given)
    monkeypatch.setattr(Registry, "load", staticmethod(lambda: registry))


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    register(
        monkeypatch,
        order=600,
        mappings=("drift",),
        metrics=(DRIFT,),
        page=lambda result: Markup("<section><h2>Drift {}</h2></section>").format(
            result["drift"]["label"]
        ),
    )
    run = sample_run(tmp_path, layers=1)
    meta = {"result": {"drift": {"mean": 0.25, "label": "<b>"}}}
    drift = node("drift", metas=(meta,))
    return assemble(dataclasses.replace(run, nodes=(*run.nodes, drift)))


def test_sections_are_in_their_order_whatever_their_names() -> None:
    orders = [section.order for section in sections()]
    assert orders == sorted(orders) and len(orders) >= 6


def test_what_a_stage_of_another_package_found_is_shown_after_the_graph(
    result: dict[str, Any], tmp_path: Path
) -> None:
    page = render(result, {})
    assert page.index("<h2>Time and memory</h2>") < page.index("<h2>Drift &lt;b&gt;</h2>")
    assert page.index("<h2>Drift") < page.index("<h2>Checks of what was written</h2>")
    assert tracked(result, {}, tmp_path).metrics["drift.mean"] == 0.25
    assert [metric.of(result) for metric in metrics() if metric.field == "drift"] == [0.25]


def test_a_part_that_no_stage_filled_is_there_and_empty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    register(monkeypatch, order=600, mappings=("drift",), lists=("turns",))
    found = assemble(sample_run(tmp_path, layers=1))
    assert found["drift"] == {} and found["turns"] == []


def test_names_of_the_framework_are_refused() -> None:
    with pytest.raises(UserError, match="'nodes'"):
        Section(order=1, lists=("nodes",))
    with pytest.raises(UserError, match="'seconds'"):
        Metric(field="seconds", path="a.b", title="time")


def test_an_objective_that_no_section_registers_is_its_own_measure() -> None:
    by = measure("eval.accuracy.compressed", "maximize")
    assert (by.label, by.original) == ("eval.accuracy.compressed", "eval.accuracy.original")
    assert by.better(0.9, 0.8)
