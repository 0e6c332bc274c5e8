"""Candidates for the word at the cursor, from given names."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.completion.command import arguments
from pipeline.completion.matches import Names, candidates, paths

NAMES = {
    "groups": {
        "scheme": ["w4a16", "w4a16_g64", "fp8"],
        "modifier": ["gptq", "awq", "smoothquant"],
        "hydra/launcher": ["basic"],
    },
    "keys": ["mode", "key", "scheme.format", "scheme.weights.num_bits", "model.path", "save.name"],
    "flags": ["-m", "--multirun", "--config-dir"],
}
VALUES: dict[str, Names] = {
    "mode": {"values": ["run", "plan"], "paths": False},
    "save.compressed": {"values": ["true", "false"], "paths": False},
    "save.name": {"values": [], "paths": False},
}


def found(word: str, before: str = "") -> list[str]:
    def values(key: str) -> Names:
        return VALUES.get(key, {"values": [], "paths": key.endswith("path")})

    return candidates(word, before, lambda: NAMES, values)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("sch", ["scheme.", "scheme="]),
        ("scheme=w", ["scheme=w4a16", "scheme=w4a16_g64"]),
        ("scheme=w4a16,", ["scheme=w4a16,fp8", "scheme=w4a16,w4a16_g64"]),
        ("modifier=[awq,g", ["modifier=[awq,gptq"]),
        ("modifier=[", ["modifier=[awq", "modifier=[gptq", "modifier=[smoothquant"]),
        ("scheme.", ["scheme.format=", "scheme.weights."]),
        ("scheme.weights.", ["scheme.weights.num_bits="]),
        ("hyd", ["hydra/"]),
        ("hydra/", ["hydra/launcher="]),
        ("+mod", ["+modifier="]),
        ("++mod", ["++mode=", "++model.", "++modifier="]),
        ("~sch", ["~scheme", "~scheme."]),
        ("mode=", ["mode=plan", "mode=run"]),
        ("mode=run,", ["mode=run,plan"]),
        ("save.compressed=t", ["save.compressed=true"]),
        ("save.name=", []),
        ("key=scheme.", ["key=scheme.format", "key=scheme.weights."]),
        ("--c", ["--config-dir"]),
        ("nothing", []),
    ],
)
def test_what_is_offered(word: str, expected: list[str]) -> None:
    assert found(word) == expected


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "model.gguf").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "two\nlines").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found("model.path=mo") == ["model.path=model.gguf", "model.path=models/"]
    assert found(f"model.path={tmp_path}/mod") == [
        f"model.path={tmp_path}/model.gguf",
        f"model.path={tmp_path}/models/",
    ]
    assert found("model.path=~/model.") == ["model.path=~/model.gguf"]
    assert found("model.path=a,mo")[0] == "model.path=a,model.gguf"
    assert found("model.path=") == ["model.path=model.gguf", "model.path=models/"]
    assert found("model.path=.h") == ["model.path=.hidden"]
    assert found("model.path=nowhere/") == []
    assert found("m", before="--config-dir") == ["model.gguf", "models/"]
    assert found("", before="--cfg") == ["all", "hydra", "job"]
    assert paths("models") == ["models/"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("presswork", [""]),
        ("presswork ", [""]),
        ("/opt/bin/presswork a=1 b", ["a=1", "b"]),
        ("python -m pipeline ", [""]),
        ("venv/bin/python3.11 -m pipeline a=1 b=", ["a=1", "b="]),
    ],
)
def test_the_words_of_a_line(line: str, words: list[str]) -> None:
    assert arguments(line) == words
