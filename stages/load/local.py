"""Model in a local folder (`model=local model.path=DIR`), identified by its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.key import Json
from pipeline.stage import Artifact, Draft
from stages.load.model_folder import Folder, content_of, look_into, write_folder
from stages.load.model_kind import Look, SourceFacts, Work
from stages.load.side_files import has_chat_template, has_tokenizer
from stages.weights.checkpoint_files import NoWeights


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalModel:
    """A folder with config.json, tokenizer and safetensors, as transformers writes it.

    Python files go along where the configs name any (`auto_map`), or with `trust_remote_code`.
    """

    path: str
    """The folder, as transformers or the hub have it."""
    trust_remote_code: bool = False
    rehash: bool = False
    """Read all files for their sha256, also those that seem to be as they were when last read."""

    @property
    def folder(self) -> Path:
        return Path(self.path).expanduser()

    def semantics(self) -> Json:
        return {"trust_remote_code": self.trust_remote_code}

    def look(self, *, mode: str) -> Look:
        folder = look_into(self.folder, code=self.trust_remote_code)
        if mode == "plan" and folder.config is not None:
            folder = _without_weights(folder)
        unknown = bool(folder.problems) or folder.layout is None
        identity = None if unknown else content_of(folder, rehash=self.rehash)
        return Look(
            facts=SourceFacts(
                config=folder.config,
                identity=identity,
                bytes=folder.bytes,
                label=self.path,
                tensors=folder.tensors,
                quantization=folder.quantization,
                tokenizer=has_tokenizer(folder.small),
                chat_template=has_chat_template(folder.small),
            ),
            problems=folder.problems,
            warnings=folder.warnings,
            stored_bytes=sum(path.stat().st_size for path in folder.small.values()),
        )

    def plan_config(self) -> Mapping[str, Any] | None:
        return None  # `look` has told it

    def renew(self, stored: Artifact, identity: str) -> None:
        """Do nothing: moved files, which `look` has hashed, are found by their content."""

    def load(self, draft: Draft, identity: str | None, work: Work) -> str:
        work.progress(0.0, f"reading {self.path}")
        folder = look_into(self.folder, code=self.trust_remote_code)
        loaded = content_of(folder)
        write_folder(draft, folder, loaded, work)
        return loaded


def _without_weights(folder: Folder) -> Folder:
    """A folder without weights as one to plan with: only its config is needed for that."""
    rest = tuple(each for each in folder.problems if not isinstance(each, NoWeights))
    if len(rest) == len(folder.problems):
        return folder
    told = (
        f"{folder.path} has no weights: this is the plan of the model that its config.json "
        "describes, which mode=run refuses"
    )
    return replace(folder, problems=rest, warnings=(*folder.warnings, told))
