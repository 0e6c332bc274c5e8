"""`source.json`, the manifest of a `load` result: weight files that stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.outside import FileState, PinnedFile, state_of
from pipeline.stage import Artifact, Draft
from stages.weights.hashes import find_pinned, identified

FILE = "source.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A weight file. `path` is absolute, or relative to the artifact that carries the file.

    `size`, the times and `inode` are the state in which it had its content; results of before
    2026-12 have no change time and inode.
    """

    name: str
    path: str
    size: int
    mtime_ns: int | None = None
    sha256: str | None = None
    ctime_ns: int | None = None
    inode: int | None = None

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
            ctime_ns=state.st_ctime_ns,
            inode=state.st_ino,
        )

    def locate(self, base: Path) -> PinnedFile:
        """The file as it is now: at the recorded path, else where its content was last seen.

        Raises UserError if there is no such file any more.
        """
        path = base / self.path
        if path.is_file():
            state = state_of(path)
            if self._recorded(state):
                return PinnedFile(path, state, self.sha256)
            if state.size == self.size and self.sha256:
                found = identified([path])[path]
                if found.sha256 == self.sha256:
                    return found.pinned(path)
        moved = find_pinned(self.sha256, self.size) if self.sha256 else None
        if moved is None:
            state_now = "has changed" if path.exists() else "is gone"
            raise UserError(
                f"the weight file {path} {state_now} since it was loaded",
                remedy="put it back, or run again with the model where it is now",
            )
        return moved

    def _recorded(self, state: FileState) -> bool:
        """Whether it is as it was; one of a store's result, whose files the store checks, is."""
        if self.mtime_ns is None:
            return state.size == self.size
        recorded = (self.size, self.mtime_ns, self.ctime_ns, self.inode)
        return recorded == (state.size, state.mtime_ns, state.ctime_ns, state.inode)


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
