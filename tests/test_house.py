"""The house keeps its order: sizes of files and folders, where things live, how they are titled.

Circles of imports and the order of folders are import-linter's (pyproject.toml).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from pipeline.registry import Registry
from pipeline.stage import Stage

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
    path
    for package in ("pipeline", "stages")
    for path in (ROOT / package).rglob("*.py")
    if "conf" not in path.relative_to(ROOT).parts
)
OWN = [path for path in FILES if path.name != "__init__.py"]
STAGES = [Registry.load().get("stage", kind) for kind in Registry.load().kinds("stage")]
VAGUE = re.compile(r"(What|Which|How|Where|Who|Whose|Whether|When|Is|Are|Telling|Something)\b")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_folder_has_more_than_twenty_files() -> None:
    sizes = Counter(name(path.parent) for path in OWN)
    assert {folder: size for folder, size in sizes.items() if size > 20} == {}


def test_no_file_is_longer_than_400_lines_and_the_median_is_a_page_or_two() -> None:
    sizes = {name(path): lines(path) for path in OWN}
    assert {path: size for path, size in sizes.items() if size > 400} == {}
    assert 75 <= median(sizes.values()) <= 120


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_says_in_its_first_line_what_it_is(path: Path) -> None:
    """A noun phrase or an imperative, which a stranger could search for."""
    title = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not title and path.name in ("__init__.py", "__main__.py"):
        return
    assert title and not VAGUE.match(title), title


def test_a_dictconfig_goes_no_further_than_the_command_line_and_the_config() -> None:
    places = ("pipeline/cli", "pipeline/config/", "pipeline/sweeps/command", "pipeline/sweeps/plan")
    having = {name(p) for p in FILES if "DictConfig" in p.read_text(encoding="utf-8")}
    assert {path for path in having if not path.startswith(places)} == set()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: str(stage.kind))
def test_the_light_and_the_heavy_half_of_a_stage_are_where_one_looks(stage: type[Stage]) -> None:
    folder, _, light = stage.__module__.rpartition(".")
    assert light in ("stage", stage.kind)
    heavy = "run" if light == "stage" else f"{stage.kind}_run"
    named = stage.work if isinstance(stage.work, tuple) else ()  # others depend on the config
    assert all(work == f"{folder}.{heavy}" for work in named), named
