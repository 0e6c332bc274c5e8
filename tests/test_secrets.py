"""Tokens in the configs of real runs, from the command line or the environment: told nowhere."""

from __future__ import annotations

import sys
from pathlib import Path

import httpx
import pytest

from pipeline import cli
from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes import doctor
from pipeline.registry import Registry
from tests.pipeline.tiny import composed

TOKEN = "hf_" + "Zq9" * 11


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["pipeline", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("TINY_NAME", "correct-horse")
    return TOKEN


WHAT = {
    "environment": [
        "save.name=${oc.env:TINY_NAME}",
        "dataset=hub",
        "dataset.id=${oc.env:TINY_NAME}",
        "scheme.ignore=['re:.*${oc.env:TINY_NAME}']",
    ],
    "wrong": ["save.name=${oc.env:HF_TOKEN}", "runner.workers=${oc.env:HF_TOKEN}"],
    "given": [f"save.name={TOKEN}", "dataset=hub", f"dataset.id={TOKEN}", f"model.license={TOKEN}"],
}


@pytest.mark.parametrize("kind", WHAT)
def test_every_key_that_takes_a_token_is_told_and_the_token_is_not(
    secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    assert command(monkeypatch, "mode=plan", *WHAT[kind]) == 1
    told = capsys.readouterr()
    assert secret not in told.out + told.err and "correct-horse" not in told.err
    keys = [word.partition("=")[0] for word in WHAT[kind] if word != "dataset=hub"]
    assert all(f"error: {key}" in told.err for key in keys) and "Traceback" not in told.err
    assert secret not in "".join(p.read_text() for p in Path().rglob("*") if p.is_file())


def test_explain_shows_the_reference_and_masks_what_was_typed(
    secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "mode=explain", "key=save", "save.name=${oc.env:TINY_NAME}") == 0
    told = capsys.readouterr()
    assert "${oc.env:TINY_NAME}" in told.out and "correct-horse" not in told.out + told.err
    assert secret not in told.out
    assert command(monkeypatch, "mode=explain", "key=save", f"save.name=of {secret}x") == 0
    told = capsys.readouterr()
    assert "of ${oc.env:HF_TOKEN}x" in told.out and secret[3:12] not in told.out + told.err


def test_a_config_that_is_only_printed_shows_references_resolved_or_not(
    secret: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del secret
    given = ("save.name=by ${oc.env:TINY_NAME}", "key='${save.name}: ${oc.env:TINY_NOT,x}'")
    assert command(monkeypatch, "--cfg", "job", "--resolve", *given) == 0
    told = capsys.readouterr().out
    assert "name: by ${oc.env:TINY_NAME}\n" in told and "correct-horse" not in told
    assert "key: 'by ${oc.env:TINY_NAME}: ${oc.env:TINY_NOT,x}'" in told


def test_paths_of_the_environment_go_on_working(secret: str) -> None:
    del secret
    words = ["mode=plan", "model=local", "model.path=${oc.env:HOME}/x", "environment.published=[A]"]
    config = load_config(composed(own_configs(), *words, name="config"), Registry.load())
    assert config.graph.sites["load"].stage.config.model.path.endswith("/x")
    assert config.resolved["model"]["path"] == "${oc.env:HOME}/x"


def test_the_doctor_tells_no_credentials_of_the_hubs_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], secret: str
) -> None:
    def refused(address: str, timeout: float) -> httpx.Response:
        raise httpx.ConnectError(f"cannot connect to {address} in {timeout}")

    monkeypatch.setattr(httpx, "head", refused)
    monkeypatch.setenv("HF_ENDPOINT", "http://someone:pass-word@mirror.example")
    monkeypatch.setattr(doctor, "PACKAGES", ("presswork",))
    assert command(monkeypatch, "mode=doctor") == 0
    told = capsys.readouterr()
    assert "pass-word" not in told.out + told.err and "***@mirror.example" in told.out
    assert secret not in told.out
