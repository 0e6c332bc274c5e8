"""The progress display: few plain lines without a terminal, a live one with it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.report.progress import Live, Plain, progress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines_of_a_run(layers: int, seconds_each: float) -> list[str]:
    out, clock = io.StringIO(), Clock()
    told = Plain(out, interval=10.0, clock=clock)
    told.start(2 + layers, 3)
    told.node_finished("load", 0.3)
    for index in range(layers):
        clock.now += seconds_each
        told.node_started(f"calibrate[{index}]")
        told.update(f"calibrate[{index}]", 0.5, "batch 2 of 4")
        told.node_finished(f"calibrate[{index}]", seconds_each)
    told.node_finished("save", 0.5)
    told.stop()
    return out.getvalue().splitlines()


def test_single_nodes_get_a_line_and_members_only_now_and_then() -> None:
    lines = lines_of_a_run(30, 0.5)
    assert lines[0] == "32 nodes to run, 3 reused"
    assert lines[1].startswith("load")
    assert lines[-1].startswith("save")
    assert len(lines) == 4


def test_slow_work_is_told_every_ten_seconds() -> None:
    lines = lines_of_a_run(6, 12.0)
    assert sum("50 %" in line and "batch 2 of 4" in line for line in lines) == 6


def test_a_stream_that_is_no_terminal_gets_plain_text() -> None:
    out = io.StringIO()
    shown = progress(out)
    shown.start(1, 0)
    shown.message("calibrate[0]: [bold] is kept")
    shown.node_finished("save", 1.0)
    shown.stop()
    assert isinstance(shown, Plain)
    assert out.getvalue() == "1 node to run, 0 reused\ncalibrate[0]: [bold] is kept\nsave  1.00 s\n"


def test_the_live_display_names_the_node_at_work_and_what_was_reused() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, highlight=False)
    shown = Live(console)
    shown.start(2, 5)
    shown.node_started("calibrate[0]")
    shown.update("calibrate[0]", 0.5, "batch 2 of 4")
    shown.message("warning: look here")
    shown._bars.refresh()
    shown.node_finished("calibrate[0]", 1.0)
    shown.stop()
    text = out.getvalue()
    for part in ("calibrate[0]", "batch 2 of 4", "5 reused", "warning: look here"):
        assert part in text


def test_an_update_of_a_node_that_has_ended_is_ignored() -> None:
    shown = Live(Console(file=io.StringIO(), force_terminal=True))
    shown.start(1, 0)
    shown.node_started("save")
    shown.node_finished("save", 1.0)
    shown.update("save", 0.9, "late")
    shown.stop()


def test_memory_in_use_on_a_gpu_is_told_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any("GPU" in line for line in lines_of_a_run(6, 12.0))
    monkeypatch.setattr("pipeline.report.progress.device_bytes", lambda: 12 * 10**9)
    lines = lines_of_a_run(6, 12.0)
    assert sum(line.endswith(", 12.0 GB on the GPU") for line in lines) == 6
