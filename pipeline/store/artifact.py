"""Stored artifacts and their manifests: inputs, files, sizes and sha256 digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.content import Content
from pipeline.errors import UserError
from pipeline.key import digest
from pipeline.store.layout import MANIFEST

SCHEMA = 1


class Corrupt(Exception):
    """An artifact differs from what was committed; the text says how."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """Size in bytes and sha256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A parsed manifest. `record` is all of it, the other fields are what the store needs."""

    key: str
    output: str
    files: Mapping[str, FileRecord]
    meta: Mapping[str, Any]
    record: Mapping[str, Any]

    @property
    def bytes(self) -> int:
        """Total size of the files, without the manifest."""
        return sum(file.size for file in self.files.values())


def render(record: Mapping[str, Any], files: Mapping[str, FileRecord]) -> str:
    """The text of a manifest, with a digest of itself that reveals a flipped byte.

    Raises ValueError or TypeError if `record` is not plain JSON (NaN is not).
    """
    listed = {name: {"size": f.size, "sha256": f.sha256} for name, f in files.items()}
    body = json.dumps({"schema": SCHEMA, **record, "files": listed}, allow_nan=False)
    plain = json.loads(body)
    return json.dumps({**plain, "digest": digest(plain)}, indent=1) + "\n"


def read(folder: Path, key: str) -> Manifest:
    """Read and validate the manifest in `folder`. Raises Corrupt with the reason."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Corrupt("it has no manifest") from None
    except (ValueError, NotADirectoryError, IsADirectoryError) as error:
        raise Corrupt(f"its manifest cannot be read: {error}") from error
    try:
        claimed = record.pop("digest")
        if record["schema"] != SCHEMA:
            raise Corrupt(f"its manifest has schema {record['schema']}, not {SCHEMA}")
        if record["key"] != key:
            raise Corrupt(f"its manifest is that of {record['key']}")
        files = {name: FileRecord(**entry) for name, entry in record["files"].items()}
        manifest = Manifest(
            key=key, output=record["output"], files=files, meta=record["meta"], record=record
        )
        intact = digest(record) == claimed
    except (KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"its manifest is incomplete: {error!r}") from error
    if not intact or not all(map(inside, files)):
        raise Corrupt("its manifest was altered")
    return manifest


def inside(name: str) -> bool:
    """Whether a relative file name stays within its folder and is not the manifest's."""
    path = PurePosixPath(name)
    return name != MANIFEST and bool(path.parts) and path.root == "" and ".." not in path.parts


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredArtifact:
    """An immutable folder of files, which must never be written: others hard-link to them."""

    key: str
    path: Path
    manifest: Manifest

    @property
    def meta(self) -> Mapping[str, Any]:
        """Plain JSON that the stage recorded about the result."""
        return self.manifest.meta

    @property
    def record(self) -> Mapping[str, Any]:
        """The whole manifest: kind, node, params, inputs, versions, warnings, seconds, ..."""
        return self.manifest.record

    @property
    def bytes(self) -> int:
        return self.manifest.bytes

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.manifest.files))

    def content(self, name: str) -> Content | None:
        """None: what is stored is read from its files."""
        del name
        return None

    def file(self, name: str) -> Path:
        """The path of one of its files. Raises UserError, listing the names it has, if missing."""
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
