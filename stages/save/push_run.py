"""Run `push`: create the repository, upload the checkpoint as one commit, keep the receipt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from huggingface_hub import HfApi, errors
from huggingface_hub.utils.tqdm import (
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
)

from pipeline.errors import StageFailed
from pipeline.masking import masked
from pipeline.stage import Task
from stages.model.artifact_names import CHECKPOINT
from stages.save.push import PushConfig

FILE = "push.json"
STALE = ("*.safetensors", "*.safetensors.index.json")
"""Weights of an earlier push that this one has no file for: readers would take both."""
KEPT = (
    "the checkpoint is finished, in the run folder: the same command sends it, and builds nothing"
)


def run(config: PushConfig, task: Task) -> None:
    """Upload `checkpoint/` and write push.json: {repo, revision, commit, url}."""
    push, folder = config.push, task.inputs["checkpoint"].path / CHECKPOINT
    task.progress(0.0, push.repo)
    api = HfApi()
    with _told(push.repo), _no_bars():
        api.create_repo(push.repo, private=push.private, exist_ok=True)
        if push.revision != "main":
            api.create_branch(push.repo, branch=push.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=push.repo,
            folder_path=folder,
            revision=push.revision,
            delete_patterns=list(STALE),
            commit_message="Checkpoint made by presswork",
        )
    receipt = {
        "repo": push.repo,
        "revision": push.revision,
        "commit": commit.oid,
        "url": commit.commit_url,
    }
    draft = task.outputs["out"]
    draft.write_json(FILE, receipt)
    draft.meta["result"] = {"push": receipt}


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Context that turns exceptions of the hub's client into one line without tokens."""
    try:
        yield
    except (errors.HfHubHTTPError, errors.HFValidationError) as error:
        raise StageFailed(
            f"the hub refused {repo}: {_line(error)}",
            remedy=f"use a token (HF_TOKEN) that may write there; {KEPT}",
        ) from error
    except (httpx.HTTPError, ConnectionError, errors.OfflineModeIsEnabled) as error:
        raise StageFailed(f"the hub cannot be reached: {_line(error)}", remedy=KEPT) from error
    except (RuntimeError, ValueError) as error:  # what its client makes of a failed upload
        raise StageFailed(f"the upload to {repo} failed: {_line(error)}", remedy=KEPT) from error


def _line(error: BaseException) -> str:
    """The first line of an error and of what caused it."""
    lines = [str(each).strip().partition("\n")[0] for each in (error, error.__cause__) if each]
    return masked(": ".join(filter(None, lines)) or type(error).__name__, error=True)[:300]


@contextmanager
def _no_bars() -> Iterator[None]:
    """Context without the client's own progress bars among presswork's."""
    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()
