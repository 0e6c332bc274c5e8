"""mode=inspect and mode=diff on the command line: pages, exit codes, errors with their remedies."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.config.root_schema import DiffConfig
from pipeline.errors import UserError
from stages.inspect.diff import compare
from stages.inspect.statistics import grams_of
from tests.jobs import Job
from tests.stages.quantized.checkpoints import edit

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs a command in `tmp_path`; gives exit code, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["presswork", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        return int(str(left.value.code)), told.out, told.err

    return call


def test_a_difference_is_exit_code_1_and_leaves_a_page(
    kinds: Callable[[str], Path], command: Command, tmp_path: Path
) -> None:
    changed = shutil.copytree(kinds("gptq"), tmp_path / "changed")
    name = "model.layers.0.mlp.up_proj.scales"
    edit(changed, lambda tensors: tensors[name][0, 0].mul_(1.5))
    pair = f"checkpoint=[{kinds('gptq')},{changed}]"
    code, told, errors = command("mode=diff", pair, "hydra.run.dir=made")
    assert (code, errors) == (1, "") and "1 of " in told and "tensors differ." in told
    content = json.loads((tmp_path / "made/diff.json").read_text())
    assert content["differs"] and (tmp_path / "made/diff.html").is_file()


@pytest.mark.slow
def test_equal_within_the_tolerance_is_exit_code_0(
    kinds: Callable[[str], Path], command: Command, tmp_path: Path
) -> None:
    same = f"checkpoint=[{kinds('gptq')},{kinds('gptq')}]"
    assert command("mode=diff", same, "hydra.run.dir=made")[0] == 0
    code, told, _ = command("mode=inspect", f"checkpoint={kinds('awq')}", "hydra.run.dir=seen")
    assert (
        code == 0 and "awq, by config.json" in told and (tmp_path / "seen/inspect.html").is_file()
    )
    for words, expected in {
        ("mode=inspect",): "mode=inspect is told no checkpoints",
        ("mode=diff", "checkpoint=/a"): "mode=diff is told 1 checkpoints",
        ("mode=inspect", "checkpoint=[/a,/b]"): "mode=inspect is told 2 checkpoints",
        ("mode=verify", "checkpoint=[/a,/b]"): "check one at a time",
        ("mode=inspect", "checkpoint=3"): "give the path of a folder",
        ("mode=diff", "checkpoint=[/a,/b]", "diff.tolerance=-1"): "give 0 or more",
    }.items():
        code, _, errors = command(*words)
        assert code == 1 and expected in errors and "Traceback" not in errors


def test_a_tolerance_below_0_is_refused() -> None:
    with pytest.raises(UserError, match="tolerance is -1"):
        DiffConfig(tolerance=-1)


@pytest.mark.slow
def test_outputs_are_weighed_by_the_run_that_calibrated(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    """The error that the solver reported is the one that the comparison finds."""
    from pipeline.store import Store, StoreConfig

    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    job.run("run", "scheme.weights.group_size=32", "calibrate.propagate=original")
    (store,) = tmp_path.rglob("store")
    grams = grams_of(tmp_path / "run", Store(StoreConfig(dir=str(store))))
    assert grams is not None
    content = compare(
        (tiny_llama, tmp_path / "run/checkpoint"),
        tolerance=0.0,
        grams=grams,
        told=lambda *_: None,
    )
    rows = {row["name"]: row for row in content["rows"]}
    result = json.loads((tmp_path / "run/result.json").read_text())
    errors = {each["name"]: each["relative_error"] for each in result["layers"]}
    name = "model.layers.0.mlp.down_proj"
    row = rows["model.layers.0-1.mlp.down_proj.weight"]
    assert 0.3 * errors[name] < row["output"] < 3 * errors[name]
    assert rows["model.norm.weight"]["output"] is None
