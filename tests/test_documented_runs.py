"""The tutorial run from top to bottom, and recipes that compress a folder, on a tiny model."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.frozen.models import write_model, write_text
from tests.pipeline.tiny import write_files
from tests.test_documented_commands import COMMAND, CONFIG, ELSEWHERE, ROOT, SHELL

DOCS = ROOT / "stages" / "docs"
SMALL = ("dataset.num_samples=4", "dataset.sequence_length=32", "device=cpu", "runner.threads=1")
"""What a run has that need not be large."""
BUILDS = ("run", "sensitivity")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def commands(page: Path) -> list[str]:
    """The commands of a page's shell blocks, in order, without the program."""
    blocks = SHELL.findall(page.read_text(encoding="utf-8"))
    return [match["words"] for block in blocks for match in COMMAND.finditer(block)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user has it: a model, a text, and the tutorial's own folder of configs."""
    folder = tmp_path_factory.mktemp("user")
    write_model(folder / "DIR", "llama")
    write_text(folder / "FILE")
    tutorial = (DOCS / "tutorial.md").read_text(encoding="utf-8")
    write_files(folder, {match["name"]: match["text"] for match in CONFIG.finditer(tutorial)})
    return folder


def run(place: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as it stands; what compresses does so on little data."""
    words = shlex.split(command)
    mode = next((w.removeprefix("mode=") for w in words if w.startswith("mode=")), "run")
    if mode == "verify":
        newest = max(place.glob("outputs/runs/*/*/checkpoint"), key=lambda p: p.stat().st_mtime)
        words = [w.replace("DIR", str(newest)) for w in words]
    if mode in BUILDS:
        named = {word.partition("=")[0] for word in words}
        words += [word for word in SMALL if word.partition("=")[0] not in named]
        if "eval=none" not in words:
            words += ["eval.dataset.num_samples=2", "eval.dataset.sequence_length=32"]
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *words],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_tutorial_from_top_to_bottom(place: Path) -> None:
    todo = commands(DOCS / "tutorial.md")
    assert len(todo) >= 12
    for command in todo:
        done = run(place, command)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
    results = [json.loads(path.read_text()) for path in place.glob("outputs/runs/*/*/result.json")]
    assert len(results) == 3 and all(each["status"] == "ok" for each in results)
    (sweep,) = place.glob("outputs/sweeps/*/*/sweep.json")
    assert json.loads(sweep.read_text())["status"] == "ok"


RECIPES = [
    command
    for command in dict.fromkeys(commands(DOCS / "recipes.md"))
    if not any(word in command for word in (*ELSEWHERE, "mode=", "recipe=", "push=", "-m ", "FILE"))
]
"""Those of one run; those of the default model are run on the tiny one."""


@pytest.mark.parametrize("command", RECIPES)
def test_a_recipe_that_compresses_a_folder(place: Path, command: str) -> None:
    here = "" if "model=" in command else "model=local model.path=DIR "
    done = run(place, f"{here}{command}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checks" in done.stdout
