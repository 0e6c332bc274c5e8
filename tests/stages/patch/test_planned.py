"""Blueprints of earlier plans: found by all that they follow from, and by nothing else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from stages.model.blueprint import Blueprint
from stages.patch import planned
from stages.patch.planned import remembered
from stages.weights.hashes import memory_file
from stages.weights.source import TensorSpec
from tests.stages.model.tiny import Tiny, tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("model"))


class Drawing:
    """Counts how often a blueprint is drawn."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint, self.count = blueprint, 0

    def __call__(self) -> Blueprint:
        self.count += 1
        return self.blueprint


@pytest.fixture
def drawing(model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Drawing:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Drawing(model.blueprint())


def files() -> list[Path]:
    return sorted((memory_file().parent / "blueprints").glob("*"))


def test_one_is_drawn_once_and_again_where_anything_differs(drawing: Drawing) -> None:
    spec = {"a": TensorSpec(name="a", shape=(2, 3), dtype="BF16")}
    first: dict[str, Any] = {"semantics": [8, "all"], "model": {"layers": 2}, "specs": spec}
    assert remembered(drawing, **first) == drawing.blueprint == remembered(drawing, **first)
    assert drawing.count == 1
    others = {
        "semantics": [9, "all"],
        "model": {"layers": 3},
        "specs": {"a": TensorSpec(name="a", shape=(2, 3), dtype="F32")},
    }
    for number, (name, value) in enumerate(others.items(), start=2):
        remembered(drawing, **{**first, name: value})
        assert drawing.count == number
    remembered(drawing, **{**first, "specs": None})
    assert drawing.count == 5


def test_classes_of_a_models_own_are_drawn_each_time(drawing: Drawing) -> None:
    for _ in range(2):
        remembered(drawing, semantics=1, model={"auto_map": {"AutoModel": "x.Y"}}, specs=None)
    assert drawing.count == 2 and not files()


def test_other_code_draws_anew(
    drawing: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "draw.py").write_text(f"# {name}")
        monkeypatch.setattr(planned, "DRAWING", tmp_path / name)
        remembered(drawing, semantics=1, model={}, specs=None)
    assert drawing.count == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"layers": 3}'])
def test_a_file_that_is_no_blueprint_is_replaced(drawing: Drawing, text: str) -> None:
    remembered(drawing, semantics=1, model={}, specs=None)
    (file,) = files()
    file.write_text(text)
    assert remembered(drawing, semantics=1, model={}, specs=None) == drawing.blueprint
    assert drawing.count == 2
    assert Blueprint.from_json(json.loads(file.read_bytes())) == drawing.blueprint


def test_the_last_used_ones_are_kept(drawing: Drawing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planned, "MOST", 2)
    for number in range(3):
        remembered(drawing, semantics=number, model={}, specs=None)
        for age, file in enumerate(sorted(files(), key=lambda f: f.stat().st_mtime_ns)):
            os.utime(file, (100 + age, 100 + age))
    assert len(files()) == 2
    remembered(drawing, semantics=2, model={}, specs=None)
    assert drawing.count == 3


def test_a_folder_that_cannot_be_written_costs_time_only(
    drawing: Drawing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert remembered(drawing, semantics=1, model={}, specs=None) == drawing.blueprint
