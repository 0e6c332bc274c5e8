"""mode=ls, mode=plan and run.log in a folder with a few runs; what is left behind by the others."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.registry import Registry
from tests.pipeline.tiny import FILES, tiny_registry, write_files

Command = Callable[..., str]

EXPERIMENTS = {
    "experiment/long.yaml": "# @package _global_\nuse: {times: 5}\n",
    "experiment/short.yaml": "# @package _global_\nuse: {times: 1}\n",
}


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs one command that must succeed, in a folder of its own; gives what it printed."""
    folder = write_files(tmp_path / "conf", FILES | EXPERIMENTS)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(Registry, "load", staticmethod(tiny_registry))

    def call(*words: str) -> str:
        argv = ["pipeline", "--config-dir", str(folder), "--config-name", "tiny", *words]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        assert not left.value.code, told.err
        return told.out

    return call


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_log_is_one_json_object_a_line(command: Command) -> None:
    command("mode=run", "hydra.run.dir=run")
    records = [json.loads(line) for line in Path("run/run.log").read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    built = [record for record in records if record.get("node") == "make"]
    assert built and isinstance(built[0]["seconds"], float)


def test_a_plan_tells_what_differs_from_the_last_run_of_its_experiment(command: Command) -> None:
    run = ("mode=run", "+experiment=long")
    command(*run, "data.count=2", "hydra.run.dir=outputs/runs/one")
    command("mode=run", "+experiment=short", "data.count=9", "hydra.run.dir=outputs/runs/two")
    told = lines(command("mode=plan", "+experiment=long", "data.count=4"))
    assert "Against the last such run, outputs/runs/one (ok):" in told
    assert "data.count 2 4" in told
    assert not any("use.times" in line for line in told)
    assert "nodes that are other: make 1, use 1" in told


def test_a_plan_of_the_same_says_so(command: Command) -> None:
    command("mode=run", "hydra.run.dir=outputs/runs/one")
    told = lines(command("mode=plan"))
    assert "the config is the same" in told and "every node is the same" in told


def test_a_plan_without_a_run_before_it_compares_nothing(command: Command) -> None:
    assert "Against" not in command("mode=plan")


def test_runs_and_sweeps_are_listed_and_filtered(command: Command) -> None:
    command("mode=run", "+experiment=long", "hydra.run.dir=outputs/runs/one")
    command("mode=run", "data.count=8", "hydra.run.dir=outputs/runs/two")
    command("-m", "mode=run", "data.count=1,2", "hydra.sweep.dir=outputs/runs/swept")
    told = command("mode=ls")
    assert "outputs/runs/one" in told and "outputs/runs/two" in told and "long" in told
    assert any(line.startswith("outputs/runs/swept 2 2") for line in lines(told))
    only = command("mode=ls", "+ls.filter=long")
    assert "outputs/runs/one" in only and "outputs/runs/two" not in only
    kind = lines(command("mode=ls", "+ls.filter=make"))
    assert sum(line.startswith("make out ") for line in kind) == 4
    assert not any(line.startswith("use out ") for line in kind)


def test_runs_are_found_wherever_they_were_written(command: Command, tmp_path: Path) -> None:
    command("mode=run", f"hydra.run.dir={tmp_path / 'else/where'}")
    told = command("mode=ls")
    assert str(tmp_path / "else/where") in told and "ok" in told
    unreferenced = ("mode=gc", "+gc.unreferenced=true")
    assert "0 artifacts, 0 B would be freed" in command(*unreferenced)
    (tmp_path / "else/where/config.yaml").unlink()
    told = " ".join(command(*unreferenced).split())
    assert "2 artifacts, " in told and "1 run folder was removed, or is not to be seen" in told


def test_a_narrow_terminal_gets_two_lines_a_run(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = "outputs/runs/a-name-of-a-folder-that-takes-up-a-line-by-itself-and-more-than-that-too"
    command("mode=run", f"hydra.run.dir={folder}")
    monkeypatch.setenv("COLUMNS", "80")
    told = command("mode=ls").splitlines()
    assert folder in told
    assert told[told.index(folder) + 1].strip().startswith("ok; ")


def test_what_only_measured_is_told_from_what_was_cut_off(command: Command) -> None:
    for name in ("cut", "whole"):
        command("mode=run", f"hydra.run.dir=outputs/runs/{name}")
        Path(f"outputs/runs/{name}/result.json").unlink()
    Path("outputs/runs/whole/sensitivity.json").write_text("{}")
    told = {line.split()[0]: line for line in lines(command("mode=ls")) if "outputs/runs" in line}
    assert "unfinished" in told["outputs/runs/cut"]
    assert "measured" in told["outputs/runs/whole"]


@pytest.mark.parametrize("mode", ["plan", "ls", "verify", "gc"])
def test_a_mode_that_is_no_run_leaves_no_folder(command: Command, mode: str) -> None:
    command(f"mode={mode}", *(["+gc.max_age_days=1"] if mode == "gc" else []))
    assert not Path("outputs/runs").exists()


def test_an_empty_folder_stays(command: Command) -> None:
    command("mode=plan", "store.dir=../elsewhere")
    assert Path.cwd().is_dir()


def test_the_help_has_the_groups_by_what_they_are_for(command: Command) -> None:
    text: Any = command("--help")
    told = lines(text)
    assert told.index("What is compressed, and how") < told.index("How it runs")
    assert any(line.startswith("scheme the number format") for line in told)
    assert told.index("Groups of your own") < told.index("data")
    assert "$" not in text.replace("$(presswork", "")
    assert max(map(len, text.splitlines())) <= 100
