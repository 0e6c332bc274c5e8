"""GGUF file as a model (`model=gguf model.path=FILE`), identified by its content."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.outside import unchanged
from pipeline.stage import Artifact, Draft
from stages.load.gguf_file import check_dtype, gguf_semantics
from stages.load.model_kind import Look, SourceFacts, Work, each
from stages.weights.gguf_header import read_gguf_header
from stages.weights.hashes import identified, sha256_of
from stages.weights.source_manifest import SourceFile


@dataclass(frozen=True, kw_only=True, slots=True)
class GgufModel:
    """A GGUF file; its weights are dequantized to `dtype`."""

    path: str
    """The GGUF file."""
    dtype: str = "bfloat16"
    rehash: bool = False
    """Read all of the file for its sha256, also if it seems to be as it was when last read."""

    def __post_init__(self) -> None:
        check_dtype(self.dtype)

    @property
    def file(self) -> Path:
        return Path(self.path).expanduser()

    def semantics(self) -> Json:
        return gguf_semantics(self.dtype)

    def look(self, *, mode: str) -> Look:
        del mode  # everything is here already
        identity, size = None, None
        blocks: frozenset[str] = frozenset()
        problems: tuple[UserError, ...] = ()
        try:
            header = read_gguf_header(self.file)
            size = header.size
            blocks = frozenset(tensor.type for tensor in header.tensors.values())
            found = identified([self.file], rehash=self.rehash)[self.file]
            unchanged({self.file: header.state}, {self.file: found.state})
            identity = f"gguf:{found.sha256}"
        except UserError as error:
            problems = each(error)
        return Look(
            facts=SourceFacts(
                config=None, identity=identity, bytes=size, label=self.path, blocks=blocks
            ),
            problems=problems,
            stored_bytes=4_000_000,
        )

    def plan_config(self) -> Mapping[str, Any] | None:
        from stages.load.gguf_convert import config_of, public_config

        return public_config(config_of(read_gguf_header(self.file), dtype=self.dtype))

    def renew(self, stored: Artifact, identity: str) -> None:
        """Do nothing: a moved file, which `look` has hashed, is found by its content."""

    def load(self, draft: Draft, identity: str | None, work: Work) -> str:
        from stages.load.gguf_convert import write_gguf

        work.progress(0.0, f"reading {self.path}")
        work.reads([self.file])
        sha256 = sha256_of([self.file])[self.file]
        file = SourceFile.of(self.file.name, self.file, sha256)
        write_gguf(draft, self.file, file, identity=f"gguf:{sha256}", dtype=self.dtype, work=work)
        return f"gguf:{sha256}"
