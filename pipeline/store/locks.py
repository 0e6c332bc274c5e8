"""Locks between processes, on files of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pipeline.errors import UserError
from pipeline.store.layout import Layout

PATIENCE = 120.0
"""Seconds to wait for the registry of live runs, which nobody holds for more than an instant."""


def file_lock(kind: str, path: Path) -> BaseFileLock:
    """A lock on `path`: the kernel's for `flock`, else a marker file that names its process."""
    if kind == "flock":
        return FileLock(path, thread_local=False, fallback_to_soft=False)
    return SoftFileLock(path, thread_local=False)


def taken(lock: BaseFileLock, timeout: float) -> bool:
    """Take `lock`, waiting at most `timeout` seconds (-1: without end); whether it was got."""
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        raise UserError(
            f"{lock.lock_file} cannot be locked: {error}",
            remedy="if the file system has no flock, say store.lock=soft",
        ) from error
    return True


@contextmanager
def registry(layout: Layout, kind: str) -> Iterator[None]:
    """Hold the register of live runs, so that none begins while an artifact is being freed."""
    lock = file_lock(kind, layout.live / "registry.mutex")
    if not taken(lock, PATIENCE):
        raise UserError(
            f"{lock.lock_file} has been held for {PATIENCE:.0f} s by another process",
            remedy="if no presswork runs on any machine, remove that file",
        )
    try:
        yield
    finally:
        lock.release()
