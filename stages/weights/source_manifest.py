"""`source.json`, the manifest of a `load` result: weight files that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Artifact, Draft
from stages.weights.hashes import find_content, sha256_of

FILE = "source.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A weight file. `path` is absolute, or relative to the artifact that carries the file."""

    name: str
    path: str
    size: int
    mtime_ns: int | None = None
    sha256: str | None = None

    @staticmethod
    def of(name: str, path: Path, sha256: str | None) -> SourceFile:
        """Describe a file that stays where it is."""
        state = path.stat()
        return SourceFile(
            name=name,
            path=str(path.absolute()),
            size=state.st_size,
            mtime_ns=state.st_mtime_ns,
            sha256=sha256,
        )

    def locate(self, base: Path) -> Path:
        """The file's current path: the recorded one, else where the same content was last seen.

        Raises UserError if there is no such file any more.
        """
        path = base / self.path
        if path.is_file():
            state = path.stat()
            same_size = state.st_size == self.size
            if same_size and self.mtime_ns in (None, state.st_mtime_ns):
                return path
            if same_size and self.sha256 and sha256_of([path])[path] == self.sha256:
                return path
        moved = find_content(self.sha256, self.size) if self.sha256 else None
        if moved is None:
            state_now = "has changed" if path.exists() else "is gone"
            raise UserError(
                f"the weight file {path} {state_now} since it was loaded",
                remedy="put it back, or run again with the model where it is now",
            )
        return moved


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceManifest:
    """The content of source.json.

    `kind` is "safetensors" or "gguf". `tensors`: for safetensors tensor -> file name, None for a
    single file; for gguf see `stages.weights.gguf_source`. `settings` depends on `kind`: quantized
    safetensors have "quantization" (a quantization_config) and "dtype" there.
    """

    kind: str
    identity: str
    files: tuple[SourceFile, ...]
    tensors: Mapping[str, Any] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def write(self, draft: Draft) -> None:
        draft.write_json(FILE, asdict(self))

    @staticmethod
    def load(artifact: Artifact) -> SourceManifest:
        data = artifact.json(FILE)
        files = tuple(SourceFile(**entry) for entry in data.pop("files"))
        return SourceManifest(files=files, **data)
