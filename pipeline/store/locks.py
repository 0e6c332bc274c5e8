"""Locks between processes, on files of the store."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pipeline.errors import UserError
from pipeline.store.layout import Layout

FLOCK, MARKER = ".flock", ".marker"

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

PATIENCE = 120.0
"""Seconds to wait for the registry of live runs, which nobody holds for more than an instant."""


def lock_path(folder: Path, name: str, kind: str) -> Path:
    """The file of a lock. The kinds use different files: each takes the other's for held."""
    return folder / f"{name}{FLOCK if kind == 'flock' else MARKER}"


def lock_paths(folder: Path) -> list[Path]:
    """The files of all locks in `folder`, of either kind."""
    return sorted([*folder.glob(f"*{FLOCK}"), *folder.glob(f"*{MARKER}")])


def file_lock(path: Path) -> BaseFileLock:
    """A lock on what `lock_path` gave: the kernel's, or a marker file that names its process."""
    if path.suffix == FLOCK:
        return FileLock(path, thread_local=False, fallback_to_soft=False)
    return SoftFileLock(path, thread_local=False)


def taken(lock: BaseFileLock, timeout: float) -> bool:
    """Take `lock`, waiting at most `timeout` seconds (-1: without end); whether it was got."""
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return False
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in UNSUPPORTED:
            raise
        raise UserError(
            f"{lock.lock_file} cannot be locked: {error}",
            remedy="if the file system has no flock, say store.lock=soft",
        ) from error
    return True


@contextmanager
def registry(layout: Layout, kind: str) -> Iterator[None]:
    """Hold the register of live runs, so that none begins while an artifact is being freed."""
    lock = file_lock(lock_path(layout.locks, "registry", kind))
    if not taken(lock, PATIENCE):
        raise UserError(
            f"{lock.lock_file} has been held for {PATIENCE:.0f} s by another process",
            remedy="if no presswork runs on any machine, remove that file",
        )
    try:
        yield
    finally:
        lock.release()
