"""Model on the Hugging Face hub (`model=llama3_8b` and others), identified by its commit."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.stage import Artifact, Draft
from stages.load import hub_files
from stages.load.hub_blobs import check_small
from stages.load.model_folder import (
    Folder,
    blob_sha256,
    check_content,
    look_into,
    sound,
    write_folder,
)
from stages.load.model_kind import Look, SourceFacts, Work
from stages.load.side_files import check_config
from stages.weights.source_manifest import SourceManifest

COMMIT = re.compile(r"[0-9a-f]{40}")
REPOSITORY = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubModel:
    """The safetensors and small files of one revision of a repository.

    `config` has the numbers of the architecture, for planning before anything is downloaded.
    Python files go along where the configs name any (`auto_map`), or with `trust_remote_code`.
    """

    id: str = field(metadata={"lands": True})
    """The repository on the hub: OWNER/NAME."""
    revision: str = "main"
    """A branch, a tag, or a commit, which makes the run independent of the branch."""
    config: dict[str, Any] | None = None
    trust_remote_code: bool = False
    license: str | None = field(default=None, metadata={"lands": True})
    """The licence, for the model card."""
    rehash: bool = False
    """Compare the weight files in the hub's cache with the sha256 that the hub names them by."""

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.id) or ".." in self.id:
            raise UserError(f"model.id is {self.id!r}", remedy="give it as owner/name")
        if not self.revision:
            raise UserError("model.revision is empty", remedy="give a branch, tag or commit")

    def semantics(self) -> Json:
        return {"trust_remote_code": self.trust_remote_code, "license": self.license}

    def look(self, *, mode: str) -> Look:
        commit, warnings = self.commit(mode)
        known = hub_files.cached_config(self.id, commit) if commit else None
        config = known or self.config
        problems: list[UserError] = []
        if config is None and mode == "run" and commit:
            config = hub_files.fetch_config(self.id, commit)
        if config is not None:
            problems = check_config(config, trust_remote_code=self.trust_remote_code)
        return Look(
            facts=SourceFacts(
                config=config,
                identity=f"hub:{self.id}@{commit}" if commit else None,
                bytes=None,
                label=f"{self.id} at {self.revision}",
                quantization=None if problems else (config or {}).get("quantization_config"),
            ),
            problems=tuple(problems),
            warnings=warnings,
        )

    def commit(self, mode: str) -> tuple[str | None, tuple[str, ...]]:
        """The commit of `revision`, and warnings; None if it is unknown in mode plan.

        A branch or tag is looked up on the hub; in mode plan, offline, and if the hub cannot be
        reached, the commit in the cache is taken.
        """
        if COMMIT.fullmatch(self.revision):
            return self.revision, ()
        cached = hub_files.cached_commit(self.id, self.revision)
        if mode == "plan" or (cached and hub_files.offline()):
            return cached, ()
        try:
            return hub_files.ask(self.id, self.revision).commit, ()
        except hub_files.Unreachable as error:
            if cached is None:
                raise
            return cached, (f"{error.what}; the cached commit {cached[:12]} is used",)

    def plan_config(self) -> Mapping[str, Any] | None:
        raise UserError(
            f"the numbers of {self.id} are not known before it is downloaded",
            remedy="give them as model.config, or run with mode=run",
        )

    def renew(self, stored: Artifact, identity: str) -> None:
        """Download again what is missing from the hub's cache; the store holds no weights."""
        files = SourceManifest.load(stored).files
        try:
            found = [file.locate(stored.path) for file in files]
        except UserError:
            self.fetch(identity.rpartition("@")[2], lambda fraction, text: None)
            return
        if self.rehash:
            check_content({file.path: file.sha256 for file in found})

    def load(self, draft: Draft, identity: str | None, work: Work) -> str:
        commit = (identity or "").rpartition("@")[2] or self.commit("run")[0] or self.revision
        work.progress(0.0, f"fetching {self.id}")
        folder = self.fetch(commit, work.progress)
        loaded = f"hub:{self.id}@{commit}"
        if self.rehash:
            check_content({path: blob_sha256(path) for path in sound(folder).files.values()})
        check_small(folder.small.values())
        write_folder(draft, folder, loaded, work)
        draft.meta["license"] = self.license
        for warning in folder.warnings:
            work.warn(warning)
        for name, value in (self.config or {}).items():
            stated = (folder.config or {}).get(name)
            if stated is not None and stated != value:
                work.warn(f"model.config.{name} is {value}, the model's own config says {stated}")
        return loaded

    def fetch(self, commit: str, progress: hub_files.Progress) -> Folder:
        """The snapshot of a commit, from the cache if it is complete there, else from the hub."""
        cached = hub_files.cached_snapshot(self.id, commit)
        folder = look_into(cached, code=self.trust_remote_code) if cached else None
        if folder is None or folder.problems or (folder.lacking and not hub_files.offline()):
            code = self.trust_remote_code
            path = hub_files.download(self.id, commit, code=code, progress=progress)
            if self.revision != commit:
                hub_files.remember(self.id, self.revision)
            folder = look_into(path, code=self.trust_remote_code)
        if folder.problems:
            raise folder.problems[0]
        if folder.quantization is not None:
            self._check_known(folder)
        return folder

    def _check_known(self, folder: Folder) -> None:
        """Raise UserError if the plan did not know the quantization, which is part of the key."""
        known = self.config is None or self.config.get("quantization_config")
        if folder.quantized_by != "config.json" or not known:
            raise UserError(
                f"{self.id} is stored quantized, which {folder.quantized_by} says and model.config "
                "does not",
                remedy=f"say model=local model.path={folder.path}",
            )
