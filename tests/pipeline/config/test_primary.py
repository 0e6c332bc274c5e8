"""The command line: options may stand anywhere among the overrides."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from hydra._internal.utils import get_args_parser

from pipeline.config.primary import at_home, check_options, gathered
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["a=1,2", "-m"], ["-m", "a=1,2"]),
        (["a=1", "--config-dir", "x", "b=2"], ["--config-dir", "x", "a=1", "b=2"]),
        (["a=1", "--cfg", "job", "~b", "--resolve"], ["--cfg", "job", "--resolve", "a=1", "~b"]),
        (["--config-name=c", "a=1", "a=1"], ["--config-name=c", "a=1", "a=1"]),
        ([], []),
    ],
)
def test_overrides_follow_the_options_in_their_order(given: list[str], expected: list[str]) -> None:
    assert gathered(given) == expected


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["a=1", "--confg-dir", "x"], "--confg-dir\\n  did you mean --config-dir?"),
        (["--scheme", "w4a16", "a=1"], "no dashes: scheme=w4a16"),
        (["--scheme=w4a16"], "no dashes: scheme=w4a16"),
        (["a=1", "-z"], "the options are .*--config-dir"),
    ],
)
def test_an_unknown_option_is_told(given: list[str], told: str) -> None:
    with pytest.raises(UserError, match=told):
        gathered(given)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model.path=~/dir", "model.path=/home/me/dir"),
        ("a=~/x,~/y", "a=/home/me/x,/home/me/y"),
        ("a=[~/x,b]", "a=[/home/me/x,b]"),
        ("a=b~/c", "a=b~/c"),
        ("~a", "~a"),
        ("~a=1", "~a=1"),
        ("--config-dir=~", "--config-dir=~"),
    ],
)
def test_the_home_folder_may_be_written_as_in_the_shell(
    word: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home(word) == expected


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--resolve"], "--resolve only shows a config"),
        (["-m", "--cfg", "job"], "--multirun and --cfg exclude each other"),
        (["--info", "--cfg", "job", "--resolve"], "--cfg and --info exclude each other"),
        (["--cfg", "job", "--resolve", "a=1"], ""),
        (["--help", "--resolve"], ""),
        (["-m", "a=1,2"], ""),
    ],
)
def test_options_that_hydra_takes_one_at_a_time(words: list[str], told: str) -> None:
    options = get_args_parser().parse_intermixed_args(words)
    with pytest.raises(UserError, match=told) if told else nullcontext():
        check_options(options)
