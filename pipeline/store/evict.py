"""Remove an entry in one step; sweep up what dead processes left behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.store.disk import remove
from pipeline.store.layout import Layout
from pipeline.store.leases import Lease, file_lock, leases, lock_paths, registry, taken

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


def bury(layout: Layout, key: str) -> Path | None:
    """Take an entry out of the store in one step; its remains, to be removed, or None."""
    remains = layout.tmp / f"{TRASH}.{key[:12]}.{uuid.uuid4().hex}"
    try:
        layout.entry(key).rename(remains)
    except FileNotFoundError:
        return None
    layout.seal(key).unlink(missing_ok=True)
    return remains


def bury_unheld(layout: Layout, kind: str, key: str, own: Lease | None = None) -> Path | None:
    """The same, unless a lease other than `own` holds the key; None then too."""
    with registry(layout, kind):
        others = leases(layout)
        if own is not None:
            others.pop(own.token, None)
        if any(key in keys for keys in others.values()):
            return None
        return bury(layout, key)
