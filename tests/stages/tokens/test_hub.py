"""Hub datasets without a hub: what is asked of it, and what is said when it does not answer."""

from __future__ import annotations

import socket

import pytest
from huggingface_hub import constants

from pipeline.errors import UserError
from pipeline.key import digest
from stages.tokens.datasets.hub import Hub
from stages.tokens.stage import Tokens, TokensConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        yield


def test_a_commit_identifies_a_dataset_without_asking():
    assert Hub(id="a/b", revision=COMMIT).identity() == {"commit": COMMIT}


@pytest.mark.parametrize("revision", ["main", "v1"])
def test_an_unreachable_hub_is_one_error_at_plan_time(revision):
    survey = Tokens(TokensConfig(dataset=Hub(id="a/b", revision=revision))).survey(None)
    (problem,) = survey.problems
    assert "the hub cannot be reached" in problem.what and "a/b" in problem.what
    assert "\n" not in problem.what


def test_documents_of_a_commit_need_the_hub(tmp_path):
    with pytest.raises(UserError, match="cannot be reached"):
        list(Hub(id="a/b", revision=COMMIT).documents(tmp_path))


def test_an_impossible_id_is_refused():
    with pytest.raises(UserError, match="no dataset id"):
        Hub(id="not an id").identity()


def test_streaming_changes_no_key():
    keys = [
        digest(Tokens(TokensConfig(dataset=Hub(id="a/b", revision=COMMIT, **how))).semantics(None))
        for how in ({}, {"streaming": False}, {"split": "test"})
    ]
    assert keys[0] == keys[1] != keys[2]
