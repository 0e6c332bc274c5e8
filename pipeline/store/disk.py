"""Durable file operations: fsync, atomic replacement, removal, walking a folder."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path


def sync(path: Path) -> None:
    """fsync a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str, *, tmp: Path) -> None:
    """Write `text` to `path` atomically, by way of a file in `tmp` on the same disk."""
    draft = tmp / f"note.{uuid.uuid4().hex}"
    try:
        draft.write_text(text, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a file or a folder with its content; no error if it is gone already."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def walk(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below `folder` except plain folders, as (relative name, entry), in order."""
    stack = [(folder, "")]
    while stack:
        here, prefix = stack.pop()
        with os.scandir(here) as entries:
            for entry in sorted(entries, key=lambda e: e.name):
                if entry.is_dir(follow_symlinks=False):
                    stack.append((Path(entry.path), f"{prefix}{entry.name}/"))
                else:
                    yield f"{prefix}{entry.name}", entry


def folders(folder: Path) -> list[Path]:
    """`folder` and all its subfolders, the deepest first."""
    return [Path(here) for here, _, _ in os.walk(folder, topdown=False)]


def human(count: float) -> str:
    """A number of bytes in binary units: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
