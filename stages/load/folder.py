"""A folder of config, tokenizer and safetensors, as `local` and `hub` models have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.key import digest
from pipeline.stage import Draft
from stages.load.small import check_config, copy_small, read_config, small_files
from stages.load.source import MODEL, each
from stages.weights.folder import Layout, find_weights, home_of, read_headers
from stages.weights.hashes import sha256_of
from stages.weights.manifest import SourceFile, SourceManifest
from stages.weights.safetensors_source import SafetensorsSource

HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """What a look into a model folder gave. What is broken is None, and among the problems."""

    path: Path
    layout: Layout | None
    config: Mapping[str, Any] | None
    small: Mapping[str, Path]
    bytes: int | None
    problems: tuple[UserError, ...]


def look_into(path: Path, *, code: bool) -> Folder:
    """Check a model folder; all that is wrong with it at once. Reads headers, no weights."""
    problems: list[UserError] = []
    layout: Layout | None = None
    config: dict[str, Any] | None = None
    small: dict[str, Path] = {}
    size = None
    try:
        layout = find_weights(path)
        read_headers(layout)
        size = sum(file.stat().st_size for file in layout.files.values())
    except UserError as error:
        problems.extend(each(error))
    if path.is_dir():
        try:
            small = small_files(path, code=code)
            config = read_config(path / "config.json")
            problems.extend(check_config(config, trust_remote_code=code))
        except UserError as error:
            problems.append(error)
    return Folder(
        path=path, layout=layout, config=config, small=small, bytes=size, problems=tuple(problems)
    )


def content_of(folder: Folder) -> str:
    """The identity of a sound folder: the sha256 of every file that counts, under its name."""
    layout = sound(folder)
    files = {**folder.small, **layout.files}
    hashes = sha256_of(files.values())
    return "sha256:" + digest({name: hashes[path] for name, path in files.items()})


def write_folder(draft: Draft, folder: Folder, identity: str) -> None:
    """Write a folder's source.json, small files and meta into a draft."""
    layout = sound(folder)
    hashes = {path: blob_sha256(path) for path in layout.files.values()}
    unknown = [path for path, known in hashes.items() if known is None]
    hashes |= sha256_of(unknown)
    files = tuple(SourceFile.of(name, path, hashes[path]) for name, path in layout.files.items())
    manifest = SourceManifest(
        kind="safetensors", identity=identity, files=files, tensors=layout.tensors
    )
    manifest.write(draft)
    copy_small(folder.small, draft.path / MODEL)
    specs = SafetensorsSource(layout).specs().values()
    describe(draft, identity, folder.config or {}, sum(spec.bytes for spec in specs))


def describe(draft: Draft, identity: str, config: Mapping[str, Any], size: int) -> None:
    """Say in the manifest what was loaded. `size`: bytes of all tensors as they are read."""
    architectures = config.get("architectures") or [None]
    draft.meta.update(
        identity=identity,
        architecture=architectures[0],
        model_type=config.get("model_type"),
        bytes=size,
    )


def sound(folder: Folder) -> Layout:
    """The layout of a folder; raises its first problem if it has any."""
    if folder.problems:
        raise folder.problems[0]
    if folder.layout is None:
        raise UserError(f"{folder.path} has no weights")
    return folder.layout


def blob_sha256(path: Path) -> str | None:
    """The sha256 of a weight file in the hub's cache, which names its blobs by it; else None."""
    blob = path.resolve()
    inside_cache = blob.parent.name == "blobs" and home_of(path.parent) == blob.parent.parent
    return blob.name if inside_cache and len(blob.name) == 64 and set(blob.name) <= HEX else None
