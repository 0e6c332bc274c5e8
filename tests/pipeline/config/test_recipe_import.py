"""`recipe=FILE`: a translation takes its place among defaults and overrides."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.config.recipe_import import LARGEST, Imported, Translation, imported
from pipeline.config.root import load_config
from pipeline.errors import UserError
from pipeline.registry import Registry
from tests.pipeline.tiny import FILES, composed, tiny_registry, write_files


def translator(text: str, registry: Registry) -> Translation | None:
    """Reads `strength COUNT`: the modifier and the number of words."""
    del registry
    if not text.startswith("words "):
        return None
    strength, count = text.split()[1:]
    if strength == "bad":
        raise UserError("strength: it is bad", remedy="make it better")
    upper = {"kind": "upper", "strength": strength}
    return Translation(
        sections={"data": {"kind": "words", "count": int(count)}, "modifier": {"upper": upper}},
        notes=("colour is not needed: words have none",),
    )


def registry() -> Registry:
    known = tiny_registry()
    known.entries["recipe"] = {"words": translator}
    return known


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Registry, "load", staticmethod(registry))
    monkeypatch.chdir(tmp_path)
    primary = FILES["tiny.yaml"] + "recipe: null\n"
    return write_files(tmp_path / "conf", {**FILES, "tiny.yaml": primary})


def recipe(tmp_path: Path, text: str, name: str = "words.txt") -> str:
    (tmp_path / name).write_text(text)
    return f"recipe={tmp_path / name}"


def sections(folder: Path, *words: str) -> dict[str, object]:
    given = [*imported(words, registry).overrides, *words]
    config = load_config(composed(folder, *given), registry(), overrides=given)
    assert config.resolved["recipe"] is None
    return {"data": config.sections["data"], "modifier": config.sections["modifier"]}


def test_it_replaces_the_defaults(folder: Path, tmp_path: Path) -> None:
    found = sections(folder, recipe(tmp_path, "words 0.25 7"))
    assert found["data"] == {"kind": "words", "count": 7}
    assert found["modifier"] == {"upper": {"kind": "upper", "strength": "0.25"}}


def test_the_users_own_values_and_choices_win(folder: Path, tmp_path: Path) -> None:
    word = recipe(tmp_path, "words 0.25 7")
    found = sections(folder, "modifier.upper.strength=0.75", word, "data.count=9")
    assert found["data"] == {"kind": "words", "count": 9}
    assert found["modifier"] == {"upper": {"kind": "upper", "strength": 0.75}}
    chosen = sections(folder, word, "data=few", "modifier=[reverse]")
    assert chosen["data"] == {"kind": "words", "count": 3, "language": None}
    assert chosen["modifier"] == {"reverse": {"kind": "reverse"}}


def test_without_a_recipe_nothing_is_loaded() -> None:
    assert imported(["data=few", "recipe=null"], Registry.load) == Imported()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("other 1 2", "is no recipe that can be read\n  recipes of these kinds can: words"),
        ("words bad 1", "words.txt: strength: it is bad\n  make it better"),
        ("words ${oc.env:HOME} 1", "would become '${oc.env:HOME}'"),
        ("words ??? 1", "modifier.upper.strength would become '???'"),
        ("words 1 " + "1" * LARGEST, "is larger than"),
    ],
)
def test_a_file_that_cannot_be_taken_is_told(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        imported([recipe(tmp_path, text)], registry)
    assert told in str(error.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    for name, told in (("raw", "no text in UTF-8"), ("gone", "cannot be read"), (".", "cannot be")):
        with pytest.raises(UserError, match=told):
            imported([f"recipe={tmp_path / name}"], registry)


def test_one_recipe_at_a_time() -> None:
    for words in (["recipe=a", "recipe=b"], ["recipe=a,b"]):
        with pytest.raises(UserError, match="several recipes"):
            imported(words, registry)


def test_a_config_file_cannot_name_a_recipe(folder: Path) -> None:
    cfg = composed(folder, "recipe=some.yaml")
    with pytest.raises(UserError, match="read from the command line only"):
        load_config(cfg, registry(), overrides=())


def leave(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str, name: str = "tiny") -> int:
    argv = ["pipeline", "--config-dir", str(folder), "--config-name", name, *words]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert sys.argv == argv
    return int(left.value.code or 0)


def test_the_command_line_shows_the_translated_config_and_what_was_left_out(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    word = recipe(tmp_path, "words 0.25 7")
    assert leave(monkeypatch, folder, word, "modifier.upper.strength=0.5", "--cfg", "job") == 0
    shown = capsys.readouterr()
    assert "count: 7" in shown.out and "strength: 0.5" in shown.out
    assert shown.err == f"note: {tmp_path / 'words.txt'}: colour is not needed: words have none\n"


def test_a_resolved_config_takes_no_recipe(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    word = recipe(tmp_path, "words 0.25 7")
    resolved = folder / "resolved.yaml"
    resolved.write_text(
        "defaults: [base, _self_]\nrecipe: null\ndata: {kind: words}\nmodifier: {}\nmode: plan\n"
    )
    assert leave(monkeypatch, folder, word, name="resolved") == 1
    err = capsys.readouterr().err
    assert "the defaults of this config choose no data and no modifier" in err
    assert "Traceback" not in err
