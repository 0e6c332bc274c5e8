"""Atomic removal of entries, and cleanup of what dead processes left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.store.disk import remove
from pipeline.store.layout import Layout
from pipeline.store.leases import Lease, acquire, file_lock, leases, lock_paths, registry

DAY = 86400.0
TRASH = "trash"


def sweep_tmp(layout: Layout, kind: str, *, dry_run: bool = False) -> list[Path]:
    """Remove temporary folders whose process is dead, and return them.

    Folders without the token of a process are removed when older than a day.
    """
    with registry(layout, kind):
        # Listed with the registry held: a process that starts later is not in the list.
        held = leases(layout)
        leftovers = [path for path in layout.tmp.iterdir() if abandoned(path, held)]
    if not dry_run:
        for path in leftovers:
            remove(path)
    return leftovers


def abandoned(path: Path, held: Iterable[str]) -> bool:
    owner = path.name.split(".")[0]
    if owner in held:
        return False
    known = owner == TRASH or len(owner) == 32
    return known or older_than(path, DAY)


def sweep_rest(layout: Layout) -> None:
    """Remove artifacts quarantined over a week ago, and lock files unused for a day."""
    for path in layout.quarantine.iterdir():
        if older_than(path, 7 * DAY):
            remove(path)
    for path in stale(lock_paths(layout.locks)):
        lock = file_lock(path)
        if acquire(lock, 0):
            # Removed while held: a process waiting for it notices that the file has no name.
            path.unlink(missing_ok=True)
            lock.release()


def stale(paths: Iterable[Path]) -> Iterator[Path]:
    return (path for path in paths if older_than(path, DAY))


def older_than(path: Path, seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > seconds
    return False


def detach(layout: Layout, key: str) -> Path | None:
    """Move an entry out of the store atomically; the folder to remove, None if it is gone."""
    remains = layout.tmp / f"{TRASH}.{key[:12]}.{uuid.uuid4().hex}"
    try:
        layout.entry(key).rename(remains)
    except FileNotFoundError:
        return None
    layout.seal(key).unlink(missing_ok=True)
    return remains


def detach_unleased(layout: Layout, kind: str, key: str, own: Lease | None = None) -> Path | None:
    """The same as `detach`; None also if a lease other than `own` holds the key."""
    with registry(layout, kind):
        others = leases(layout)
        if own is not None:
            others.pop(own.token, None)
        if any(key in keys for keys in others.values()):
            return None
        return detach(layout, key)
