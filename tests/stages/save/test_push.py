"""Uploading a checkpoint, to a stand-in for the Hugging Face hub on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants as constants
import pytest

from pipeline.errors import StageFailed, UserError
from stages.save.push import Push, PushConfig, PushOptions
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.site import FakeSite
from tests.stages.save.checkpoints import run
from tests.stages.save.upload_server import REPO, Hub, serving

TOKEN = "hf_" + "a1B2" * 6


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the stand-in speaks LFS
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with serving(Hub(token=TOKEN)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server


def push(folder: Path, content: dict[str, bytes]) -> FakeArtifact:
    """Push a checkpoint with these files; the result of the node."""
    saved = FakeArtifact(path=folder / "save")
    for name, data in content.items():
        path = saved.path / "checkpoint" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    out = FakeArtifact(path=folder / "push")
    out.path.mkdir(parents=True)
    stage = Push(PushConfig(push=PushOptions(repo=REPO)))
    run(stage, {"checkpoint": saved, "verified": saved}, out, folder)
    return out


SMALL = {
    "README.md": b"---\nlicense: mit\n---\n# x\n",
    "config.json": b"{}",
    "custom/a.py": b"x = 1",
}
ONE = {**SMALL, "model.safetensors": b"w" * 100_000}
SHARDS = {
    **SMALL,
    "model-00001-of-00002.safetensors": b"a" * 1000,
    "model-00002-of-00002.safetensors": b"b" * 1000,
    "model.safetensors.index.json": b'{"weight_map": {}}',
}


def test_every_file_arrives_in_one_commit_of_a_private_repository(hub: Hub, tmp_path: Path) -> None:
    out = push(tmp_path, ONE)
    assert hub.files == ONE and len(hub.commits) == 1
    assert hub.made is not None
    assert hub.made.get("visibility") == "private" or hub.made.get("private") is True
    receipt = out.json("push.json")
    assert receipt["repo"] == REPO and receipt["commit"] == hub.commits[0]
    assert receipt["url"].endswith(hub.commits[0])
    assert out.meta["result"] == {"push": receipt}
    assert TOKEN not in (out.path / "push.json").read_text()


def test_weights_of_an_earlier_push_do_not_stay_beside_the_new_ones(
    hub: Hub, tmp_path: Path
) -> None:
    push(tmp_path / "one", SHARDS)
    hub.files["LICENSE"] = b"be good"
    push(tmp_path / "two", ONE)
    assert hub.files == {**ONE, "LICENSE": b"be good"}


def test_what_the_hub_refuses_is_one_line_without_the_token(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuse = 403
    with pytest.raises(StageFailed, match=f"the hub refused {REPO}") as raised:
        push(tmp_path / "one", ONE)
    assert "\n" not in raised.value.what and TOKEN not in str(raised.value)
    assert "the same command sends it" in str(raised.value)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StageFailed, match="the hub cannot be reached"):
        push(tmp_path / "two", ONE)


def test_without_a_token_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Push(PushConfig(push=PushOptions(repo=REPO)))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (problem,) = stage.survey(FakeSite()).problems
    assert "HF_TOKEN" in problem.remedy
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    assert not stage.survey(FakeSite()).problems


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "../x", "org/na me", "org/"])
def test_what_is_no_repository_is_refused(repo: str) -> None:
    with pytest.raises(UserError, match="ORG/NAME"):
        PushOptions(repo=repo)
