"""Values of the environment: shown and stored as they are written, published only if allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.config.environment import Environment
from pipeline.config.schema import build
from pipeline.errors import UserError
from pipeline.runs.recorded import write_config
from tests.pipeline.tiny import FILES, loaded, write_files

BATTERY = "correct-horse-battery"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINY_WORD", BATTERY)
    monkeypatch.setenv("TINY_COUNT", "5")
    monkeypatch.chdir(tmp_path)
    return write_files(tmp_path / "conf", FILES)


def test_they_are_stored_as_written_and_the_config_runs_again_with_the_same_values(
    folder: Path, tmp_path: Path
) -> None:
    words = ["data.count=${oc.env:TINY_COUNT}", "data.language=${oc.env:TINY_WORD}"]
    first = loaded(folder, *words, "use.times=${data.count}", "store.dir=${oc.env:TINY_WORD}/s")
    assert first.graph.sites["make"].stage.config.data.language == BATTERY
    assert first.store.dir == f"{tmp_path}/{BATTERY}/s"
    text = write_config(first, tmp_path).read_text()
    assert BATTERY not in text and "${oc.env:TINY_WORD}" in text
    again = loaded(tmp_path, name="config")
    assert again.graph.sites["make"].stage.config == first.graph.sites["make"].stage.config
    assert again.graph.sites["use"].stage.config == first.graph.sites["use"].stage.config
    assert again.store == first.store and again.resolved == first.resolved


@pytest.mark.parametrize("written", ["${oc.${word}:TINY_WORD}", "${${name}:TINY_WORD}"])
def test_a_resolver_that_is_named_by_a_reference_reads_the_environment_too(
    folder: Path, written: str
) -> None:
    del folder
    cfg = OmegaConf.create({"word": "env", "name": "oc.env", "card": {"name": written}})
    environment = Environment.of(cfg)
    assert cfg.card.name == BATTERY and environment.shown("card.name", BATTERY) == written
    assert [str(problem) for problem in environment.withheld("card")] != []


def test_a_whole_section_that_refers_to_one_is_stored_as_the_reference(
    folder: Path, tmp_path: Path
) -> None:
    write_files(folder, {"data/named.yaml": "kind: words\nlanguage: ${oc.env:TINY_WORD}\n"})
    write_files(folder, {"other.yaml": FILES["tiny.yaml"].replace("data: few", "data: named")})
    config = loaded(folder, name="other")
    assert BATTERY not in write_config(config, tmp_path).read_text()
    assert BATTERY not in str(config.resolved)


@pytest.mark.parametrize(
    "words",
    [
        ["data.count=${oc.env:TINY_WORD}"],
        ["use.times=${data.language}", "data.language=${oc.env:TINY_WORD}"],
        ["gc.max_bytes=x${oc.env:TINY_WORD}"],
    ],
)
def test_a_wrong_one_is_told_as_it_is_written(folder: Path, words: list[str]) -> None:
    with pytest.raises(UserError) as told:
        loaded(folder, *["+" + w if w.startswith("gc") else w for w in words])
    assert BATTERY not in str(told.value)
    assert "${oc.env:TINY_WORD}" in str(told.value) or "${data.language}" in str(told.value)


def test_what_a_class_says_of_one_is_told_as_it_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINY_COUNT", "-70001")
    with pytest.raises(UserError, match=r"data\.count is \$\{oc\.env:TINY_COUNT\}"):
        loaded(folder, "data.count=${oc.env:TINY_COUNT}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    name: str | None = field(default=None, metadata={"lands": True})
    place: str = "here"


@pytest.mark.parametrize(
    ("written", "published", "refused"),
    [
        ("${oc.env:TINY_WORD}", (), True),
        ("by ${oc.env:TINY_WORD}", (), True),
        ("${card.place}", (), True),
        ("${oc.env:TINY_WORD}", ("TINY_WORD",), False),
        ("${oc.env:TINY_NOT_SET,plain}", (), False),
        ("plain", (), False),
    ],
)
def test_one_that_would_be_published_is_refused_unless_it_is_listed(
    folder: Path, written: str, published: tuple[str, ...], refused: bool
) -> None:
    del folder
    cfg = OmegaConf.create({"card": {"name": written, "place": "${oc.env:TINY_WORD}"}})
    environment = Environment.of(cfg, published)
    plain = OmegaConf.to_container(cfg.card, resolve=True)
    if not refused:
        assert build(Card, plain, "card", environment=environment).place == BATTERY
        return
    with pytest.raises(UserError, match=r"card\.name: .* comes from the environment") as told:
        build(Card, plain, "card", environment=environment)
    assert "environment.published=[TINY_WORD]" in str(told.value) and BATTERY not in str(told.value)


@pytest.mark.parametrize("word", ["hf_" + "aB3" * 11, "sk-" + "a1" * 20, "AKIA" + "A1B2" * 4])
def test_no_key_takes_an_access_token(folder: Path, word: str) -> None:
    with pytest.raises(UserError, match=r"data\.language is .*, an access key") as told:
        loaded(folder, f"data.language={word}")
    assert word not in str(told.value)
