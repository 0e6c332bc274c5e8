"""Tokens and credentials in texts, streams, logs and files: the last net."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.logs import logging_to
from pipeline.masking import is_secret, masked, masked_streams, note_variable
from pipeline.messages import message
from pipeline.report.text_files import write_text

TOKENS = {
    "hf_" + "aB3" * 11: "hf_***",
    "sk-proj-" + "a1B2" * 8: "sk-***",
    "ghp_" + "a1B2" * 9: "ghp_***",
    "github_pat_" + "a1B2_" * 9: "github_pat_***",
    "glpat-" + "a1B2" * 5: "glpat-***",
    "AKIA" + "A1B2" * 4: "AKIA***",
}


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_of_known_shapes_are_masked_wherever_they_stand(token: str) -> None:
    assert is_secret(token)
    for text in ("{}", "model.id is '{}'", "https://host/{}/x", '{{"id": "{}"}}', "a={}, b"):
        assert masked(text.format(token)) == text.format(TOKENS[token])


def test_bearer_tokens_and_credentials_of_addresses_are_masked() -> None:
    assert masked("Authorization: Bearer " + "x1.y" * 8) == "Authorization: Bearer ***"
    assert masked("to https://me:pass@host:1/a?b=1") == "to https://***@host:1/a?b=1"
    signed = "https://s3/x?X-Amz-Signature=abc&n=2"
    assert masked(signed) == "https://s3/x?X-Amz-Signature=***&n=2"


@pytest.mark.parametrize(
    "text",
    [
        "hf_model is no token, nor is task-specific-and-long-enough-name",
        "mail me@host and model.layers.0@main; https://host/a@b",
        "sha256 0123456789abcdef0123456789abcdef01234567, tokens=32, Bearer of news",
        "risk-adjusted-returns-of-everything AKIA",
    ],
)
def test_ordinary_texts_stay(text: str) -> None:
    assert masked(text) == text


def test_values_of_secret_variables_become_their_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINY_PLACE", "correct-place")
    note_variable("TINY_PLACE")
    assert masked("at correct-place") == "at correct-place"
    assert str(UserError("not at correct-place")) == "not at ${oc.env:TINY_PLACE}"
    monkeypatch.setenv("TINY_API_KEY", "correct-horse")
    monkeypatch.setenv("TINY_TOKENIZERS", "correct-cow-1")
    assert masked("x correct-horse y correct-cow-1") == "x ${oc.env:TINY_API_KEY} y correct-cow-1"


def test_streams_errors_logs_and_files_are_masked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = next(iter(TOKENS))
    with masked_streams(), masked_streams():
        sys.stdout.write(f"{token} shown\n")
        sys.stderr.writelines([token, "\n"])
    told = capsys.readouterr()
    assert told.out == "hf_*** shown\n" and told.err == "hf_***\n"
    assert token not in str(UserError(f"no {token}", remedy=f"not {token}"))
    with logging_to(tmp_path / "run.log"):
        logging.getLogger("tiny").error("to %s", token, extra={"place": token})
    write_text(tmp_path / "a.json", f'"{token}"')
    for path in (tmp_path / "run.log", tmp_path / "a.json"):
        assert token not in path.read_text() and "hf_***" in path.read_text()


def test_control_characters_of_strangers_steer_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steering = "a\x1b]52;c;eA==\x07\x9b2J\u202eb\tc\nd é"
    error = UserError(steering, remedy=steering)
    message(steering)
    shown = "a\\x1b]52;c;eA==\\x07\\x9b2J\\u202eb\tc\nd é"
    assert error.what == error.remedy == shown
    assert capsys.readouterr().err == f"{shown}\n"
