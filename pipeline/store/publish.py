"""Publishing a folder of an artifact to a run folder by hard links, without copying big files."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.store.artifact import StoredArtifact
from pipeline.store.disk import folders, remove, sync, walk
from pipeline.store.disk_errors import Place, explained

SMALL = 1 << 20
"""Files below this many bytes are copied, so that they can be edited."""

REMEDY = "choose another output folder: hydra.run.dir=..."

UNLINKABLE = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """A published folder, with the bytes hard-linked and copied (both 0: it was up to date)."""

    path: Path
    linked: int
    copied: int


def link_tree(artifact: StoredArtifact, destination: Path, subfolder: str = "") -> Publication:
    """Make `destination` the content of `subfolder` of the artifact, atomically.

    Files from 1 MiB on are hard links to the store's (copies where the file system has none),
    smaller ones are copies. An earlier publication is replaced, or moved aside if it was edited
    since; a folder of other origin raises UserError. A hidden file beside `destination` records
    what was published.
    """
    destination = destination.absolute()
    source = artifact.path / subfolder
    partial = destination.with_name(f".{destination.name}.partial")
    with explained(Place(root=destination.parent, what="the folder", remedy=REMEDY)):
        earlier = published(destination)
        note = {"key": artifact.key, "subfolder": subfolder}
        if earlier is not None and earlier == {**note, "files": inventory(destination)}:
            return Publication(path=destination, linked=0, copied=0)
        destination.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        linked, copied = fill(source, partial)
        replaced = step_aside(destination, earlier)
        write_note(destination, {**note, "files": inventory(partial)})
        partial.rename(destination)
        sync(destination.parent)
        if replaced is not None:
            remove(replaced)
    return Publication(path=destination, linked=linked, copied=copied)


def fill(source: Path, partial: Path) -> tuple[int, int]:
    """Link or copy all files; returns the bytes linked and the bytes copied."""
    linked = copied = 0
    partial.mkdir()
    for name, entry in walk(source):
        target = partial / name
        target.parent.mkdir(parents=True, exist_ok=True)
        size = entry.stat(follow_symlinks=False).st_size
        if size >= SMALL and link(Path(entry.path), target):
            linked += size
        else:
            shutil.copyfile(entry.path, target)
            sync(target)
            copied += size
    for folder in folders(partial):
        sync(folder)
    return linked, copied


def link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in UNLINKABLE:
            raise
        return False
    return True


def step_aside(destination: Path, earlier: Mapping[str, Any] | None) -> Path | None:
    """Move the folder at `destination` away; returns the folder to remove afterwards, or None.

    A publication that was edited keeps its content under another name; an empty folder is removed.
    """
    if not destination.exists():
        return None
    if earlier is None:
        if destination.is_dir() and not any(destination.iterdir()):
            destination.rmdir()
            return None
        raise UserError(
            f"{destination} exists and was not published from the store",
            remedy=f"remove it, or {REMEDY}",
        )
    if earlier["files"] == inventory(destination):
        old = destination.with_name(f".{destination.name}.old")
        remove(old)
        destination.rename(old)
        return old
    destination.rename(unused(destination))
    return None


def unused(destination: Path) -> Path:
    number = 1
    while (path := destination.with_name(f"{destination.name}.edited-{number}")).exists():
        number += 1
    return path


def inventory(folder: Path) -> dict[str, list[int]]:
    """Relative name -> [size in bytes, mtime in ns] of every file below `folder`."""
    files = {}
    for name, entry in walk(folder) if folder.is_dir() else ():
        status = entry.stat(follow_symlinks=False)
        files[name] = [status.st_size, status.st_mtime_ns]
    return files


def note_path(destination: Path) -> Path:
    return destination.with_name(f".{destination.name}.published.json")


def published(destination: Path) -> dict[str, Any] | None:
    """The record of the last publication, or None if there is none or it cannot be read."""
    try:
        note: dict[str, Any] = json.loads(note_path(destination).read_text(encoding="utf-8"))
        note["key"], note["subfolder"], note["files"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return note


def write_note(destination: Path, note: Mapping[str, Any]) -> None:
    path = note_path(destination)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(note), encoding="utf-8")
    draft.replace(path)
