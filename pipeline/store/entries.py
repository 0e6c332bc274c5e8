"""Entries of the store with size and last use, and disk usage with hard links counted once."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.store.artifact import Corrupt, Manifest, read
from pipeline.store.layout import Layout

Inode = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One artifact: its size in bytes, and when it was created and last used (epoch seconds)."""

    key: str
    kind: str
    node: str
    output: str
    bytes: int
    created: float
    used: float


def entries(layout: Layout) -> Iterator[Entry]:
    """All artifacts with a readable manifest, by key. Their files are not checked."""
    for key in layout.keys():
        with suppress(Corrupt, FileNotFoundError):
            yield entry(layout, read(layout.entry(key), key))


def entry(layout: Layout, manifest: Manifest) -> Entry:
    created = datetime.fromisoformat(manifest.record["created"]).timestamp()
    try:
        used = layout.seal(manifest.key).stat().st_mtime
    except FileNotFoundError:
        used = created
    return Entry(
        key=manifest.key,
        kind=manifest.record.get("kind", "?"),
        node=manifest.record.get("node", "?"),
        output=manifest.output,
        bytes=manifest.bytes,
        created=created,
        used=used,
    )


class Ledger:
    """Disk usage of artifacts that share files by hard links, each file counted once.

    `total` is the space that the entries added and not yet released occupy.
    """

    def __init__(self) -> None:
        self.total = 0
        self._links: dict[Inode, int] = {}
        self._names: Counter[Inode] = Counter()
        self._released: Counter[Inode] = Counter()

    def add(self, folder: Path) -> None:
        for inode, status in inodes(folder):
            self.total += 0 if inode in self._links else status.st_size
            self._links.setdefault(inode, status.st_nlink)
            self._names[inode] += 1

    def release(self, folder: Path) -> int:
        """Subtract an added entry; the bytes of files that then have no name left anywhere."""
        freed = 0
        for inode, status in inodes(folder):
            self._released[inode] += 1
            if self._released[inode] == self._names[inode]:
                self.total -= status.st_size
            if self._released[inode] == self._links.get(inode):
                freed += status.st_size
        return freed


def inodes(folder: Path) -> Iterator[tuple[Inode, os.stat_result]]:
    """(device, inode) and status of every file below `folder`."""
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            status = path.lstat()
            if not stat.S_ISDIR(status.st_mode):
                yield (status.st_dev, status.st_ino), status
