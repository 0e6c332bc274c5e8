"""The summary: readable without colour, with everything a person looks for."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.report import units
from pipeline.report.result import assemble
from pipeline.report.summary import print_summary
from pipeline.report.tables import comparison
from stages.compress.report.layers import worst_layers
from tests.pipeline.report.sample import sample_run


def printed(folder: Path, **given: object) -> str:
    out = io.StringIO()
    result = assemble(sample_run(folder, **given))  # type: ignore[arg-type]  # names of sample_run
    print_summary(result, folder, Console(file=out, width=80, color_system=None))
    return out.getvalue()


def test_it_says_size_quality_reuse_and_where_things_lie(tmp_path: Path) -> None:
    text = printed(tmp_path)
    for part in ("269.1 MB", "112.4 MB", "2.39 x smaller", "4.252", "19.82", "21.07", "+6.3 %"):
        assert part in text
    assert "2 of 97 nodes reused, 3.20 s saved" in text
    assert str(tmp_path / "checkpoint") in text
    assert str(tmp_path / "report.html") in text
    assert "\x1b" not in text


def test_fallbacks_and_warnings_come_first(tmp_path: Path) -> None:
    text = printed(tmp_path)
    assert text.startswith("fallback: model.layers.7")
    assert text.index("warning: store") < text.index("done in")


def test_square_brackets_of_a_message_are_printed_as_they_are(tmp_path: Path) -> None:
    result = {**assemble(sample_run(tmp_path)), "warnings": ["calibrate[3]: [red]odd[/red]"]}
    out = io.StringIO()
    print_summary(result, tmp_path, Console(file=out, width=80, color_system=None))
    assert "calibrate[3]: [red]odd[/red]" in out.getvalue()


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    assert "go on with  python -m pipeline" in printed(tmp_path, status="interrupted")


def test_the_worst_layers_have_the_largest_errors(tmp_path: Path) -> None:
    result = assemble(sample_run(tmp_path))
    worst = [row["relative_error"] for row in worst_layers(result)]
    others = sorted((row["relative_error"] for row in result["layers"]), reverse=True)
    assert worst == others[:5]


def test_what_was_not_measured_has_no_row(tmp_path: Path) -> None:
    result = {**assemble(sample_run(tmp_path)), "eval": {}}
    shown = [row.what for row in comparison(result)]
    assert shown == ["size", "bits per weight, compressed weights", "bits per weight, whole model"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1536, "1.5 kB"), (269_060_552, "269.1 MB"), (3e12, "3.0 TB")],
)
def test_sizes(value: float, text: str) -> None:
    assert units.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42, "0.42 s"), (59.96, "1 min 00 s"), (75, "1 min 15 s"), (7260, "2 h 01 min")],
)
def test_durations(value: float, text: str) -> None:
    assert units.duration(value) == text


def test_device_memory_is_told_where_a_gpu_was_used(tmp_path: Path) -> None:
    assert "device memory" not in printed(tmp_path)
    run = sample_run(tmp_path)
    nodes = (replace(run.nodes[0], peak_device_bytes=3 * 10**9), *run.nodes[1:])
    out = io.StringIO()
    result = assemble(replace(run, nodes=nodes))
    print_summary(result, tmp_path, Console(file=out, width=80, color_system=None))
    assert f"device memory  3.0 GB at most, in {nodes[0].name}" in out.getvalue()
