"""A result in the store, as a stage or the runner reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArtifact:
    """An immutable folder of files. Its files must never be written: others hard-link them."""

    key: str
    path: Path
    manifest: Manifest

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the stage said about the result."""
        return self.manifest.meta

    @property
    def record(self) -> Mapping[str, Any]:
        """The whole manifest: kind, node, params, inputs, versions, warnings, seconds, ..."""
        return self.manifest.record

    @property
    def bytes(self) -> int:
        return self.manifest.bytes

    def file(self, name: str) -> Path:
        """The path of one of its files. Raises UserError, with the names it has, if not there."""
        if name not in self.manifest.files:
            raise UserError(
                f"the result {self.key[:12]} of {self.record.get('node', '?')} has no file "
                f"{name!r}; it has {', '.join(sorted(self.manifest.files)) or 'none'}",
                remedy="the stage that made it and the one that reads it disagree",
            )
        return self.path / name

    def json(self, name: str) -> Any:
        """The parsed content of one of its JSON files."""
        path = self.file(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{path} cannot be read as JSON: {error}",
                remedy="run the same command again: a damaged result is found and rebuilt",
            ) from error
