"""Clearing away what dead processes left: temporary folders, old quarantine, idle lock files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.store.disk import remove
from pipeline.store.layout import Layout
from pipeline.store.leases import leases
from pipeline.store.locks import file_lock, lock_paths, registry, taken

DAY = 86400.0
TRASH = "trash"


def sweep_tmp(layout: Layout, kind: str, *, dry_run: bool = False) -> list[Path]:
    """Remove temporary folders whose process is dead, and return them.

    What carries no process's token goes when it is older than a day.
    """
    with registry(layout, kind):
        # Listed with the register held: a process that begins later is not in the list.
        held = leases(layout)
        found = [path for path in layout.tmp.iterdir() if abandoned(path, held)]
    if not dry_run:
        for path in found:
            remove(path)
    return found


def abandoned(path: Path, held: Iterable[str]) -> bool:
    owner = path.name.split(".")[0]
    if owner in held:
        return False
    known = owner == TRASH or len(owner) == 32
    return known or older_than(path, DAY)


def sweep_rest(layout: Layout) -> None:
    """Remove what was quarantined over a week ago, and lock files that nobody used for a day."""
    for path in layout.quarantine.iterdir():
        if older_than(path, 7 * DAY):
            remove(path)
    for path in stale(lock_paths(layout.locks)):
        lock = file_lock(path)
        if taken(lock, 0):
            # Removed while held: whoever waits on the old file sees that it has no name any more.
            path.unlink(missing_ok=True)
            lock.release()


def stale(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if older_than(path, DAY))


def older_than(path: Path, seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > seconds
    return False
