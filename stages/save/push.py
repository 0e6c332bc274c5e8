"""Stage `push`: upload a finished checkpoint to a repository of the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import ClassVar

from pipeline.errors import UserError
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.compute.estimates import HEADERS_PROCESS

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
REVISION = re.compile(r"[A-Za-z0-9][\w./-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class PushOptions:
    """The repository `repo` (ORG/NAME), made if it is not there, `private` then; its branch."""

    repo: str = field(metadata={"lands": True})
    private: bool = True
    revision: str = field(default="main", metadata={"lands": True})

    def __post_init__(self) -> None:
        if not REPO.fullmatch(self.repo):
            raise UserError(f"push.repo is {self.repo!r}", remedy="give a repository: ORG/NAME")
        if not REVISION.fullmatch(self.revision):
            raise UserError(
                f"push.revision is {self.revision!r}", remedy="give the name of a branch: main"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PushConfig:
    """Where a checkpoint goes."""

    push: PushOptions


@dataclass(frozen=True, eq=False)
class Push(Stage):
    """Output `out`: push.json, the receipt of the upload; the same checkpoint is not sent twice.

    Input `checkpoint` is what is sent, once input `verified`, the result of its checks, is there.
    """

    kind: ClassVar[str] = "push"
    version: ClassVar[int] = 1
    sends: ClassVar[bool] = True
    in_driver: ClassVar[bool] = True
    work: ClassVar[tuple[str, ...]] = ("stages.save.push_run",)
    Config: ClassVar[type] = PushConfig

    def survey(self, site: Site) -> Survey:
        """Nothing is asked of the hub: but without a token no upload would be taken."""
        from huggingface_hub import get_token

        estimate = Estimate(bytes=1024, memory=HEADERS_PROCESS, seconds=30)
        if get_token() is not None or site.own() is not None:
            return Survey(estimates={None: estimate})
        problem = UserError(
            "push=hub needs a token of the Hugging Face hub, and this user has none",
            remedy="set HF_TOKEN to one that may write, or leave push=hub out",
        )
        return Survey(problems=(problem,), estimates={None: estimate})
