"""Leases and locks between processes: which keys and folders a live process holds."""

from __future__ import annotations

import errno
import json
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from pipeline.errors import UserError
from pipeline.store.disk import replace_text
from pipeline.store.disk_errors import Place, explained
from pipeline.store.layout import Layout

FLOCK, MARKER = ".flock", ".marker"

UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

PATIENCE = 120.0
"""Seconds to wait for the registry of live runs, which is only ever held for an instant."""


def lock_path(folder: Path, name: str, kind: str) -> Path:
    """The file of a lock. Each kind has files of its own: it would see the other's as held."""
    return folder / f"{name}{FLOCK if kind == 'flock' else MARKER}"


def lock_paths(folder: Path) -> list[Path]:
    """The files of all locks in `folder`, of both kinds."""
    return sorted([*folder.glob(f"*{FLOCK}"), *folder.glob(f"*{MARKER}")])


def file_lock(path: Path) -> BaseFileLock:
    """A lock on a file of `lock_path`: the kernel's, or a marker file with the process's id."""
    if path.suffix == FLOCK:
        return FileLock(path, thread_local=False, fallback_to_soft=False)
    return SoftFileLock(path, thread_local=False)


def acquire(lock: BaseFileLock, timeout: float) -> bool:
    """Acquire `lock`, waiting at most `timeout` seconds (-1: forever); whether it succeeded."""
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
    """Hold the registry of live runs, so that none starts while an artifact is being freed."""
    lock = file_lock(lock_path(layout.locks, "registry", kind))
    if not acquire(lock, PATIENCE):
        raise UserError(
            f"{lock.lock_file} has been held for {PATIENCE:.0f} s by another process",
            remedy="if no presswork runs on any machine, remove that file",
        )
    try:
        yield
    finally:
        lock.release()


class Lease:
    """Keys that must not be freed, and a token that marks temporary folders as in use.

    It lasts as long as its lock file is held, and so ends with the process, however that dies.
    (With store.lock other than flock, a process that died on another host keeps its lease until
    its files in `live/` are removed.)
    """

    def __init__(self, layout: Layout, kind: str, token: str, *, run: bool) -> None:
        self.token = token
        self.keys: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        self._run = run
        self._layout = layout
        self._kind = kind

    def extend(self, keys: Iterable[str]) -> None:
        """Add these keys. Artifacts found in the store after this call are not freed."""
        if self.keys.issuperset(new := frozenset(keys)):
            return
        with explained(Place(root=self._layout.root)), registry(self._layout, self._kind):
            self._write(new)

    def forgo(self, keys: frozenset[str]) -> None:
        """Need these keys no more: of several runs that do, the last one may free them."""
        if self.keys.isdisjoint(keys):
            return
        with explained(Place(root=self._layout.root)), registry(self._layout, self._kind):
            self.keys -= keys
            self._write(())

    def hold(self, keys: frozenset[str]) -> frozenset[str]:
        """Tell other runs which results are held here and not stored; those that they want.

        Either they were there before, and what they want is returned, or they will see these keys.
        """
        with explained(Place(root=self._layout.root)), registry(self._layout, self._kind):
            if keys != self._held:
                self._held = keys
                self._write(())
            return keys & frozenset().union(*(run.keys for run in self._other_runs()))

    def held_elsewhere(self, keys: frozenset[str]) -> frozenset[str]:
        """Which of `keys` other live runs hold."""
        with explained(Place(root=self._layout.root)), registry(self._layout, self._kind):
            return keys & frozenset().union(*(run.held for run in self._other_runs()))

    def _other_runs(self) -> list[Listing]:
        found = listings(self._layout)
        return [other for token, other in found.items() if other.run and token != self.token]

    def _write(self, keys: Iterable[str]) -> None:
        self.keys |= frozenset(keys)
        content = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "keys": sorted(self.keys),
            "held": sorted(self._held),
            "run": self._run,
        }
        listing = self._layout.live / f"{self.token}.json"
        replace_text(listing, json.dumps(content), tmp=self._layout.tmp)


class NoLease(Lease):
    """The lease on a store that cannot be written: nothing is freed from there, nor built."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout, "none", "", run=False)

    def extend(self, keys: Iterable[str]) -> None:
        self.keys |= frozenset(keys)

    def forgo(self, keys: frozenset[str]) -> None:
        self.keys -= keys

    def hold(self, keys: frozenset[str]) -> frozenset[str]:
        del keys
        return frozenset()

    def held_elsewhere(self, keys: frozenset[str]) -> frozenset[str]:
        del keys
        return frozenset()


@contextmanager
def lease(layout: Layout, kind: str, keys: Iterable[str], *, run: bool = False) -> Iterator[Lease]:
    """A lease on `keys` for the duration of the block; `run`: of one that reads and builds them."""
    token = uuid.uuid4().hex
    path = lock_path(layout.live, token, kind)
    lock = file_lock(path)
    held = Lease(layout, kind, token, run=run)
    try:
        # With the registry held: a lock file that exists and is not locked yet looks abandoned.
        with registry(layout, kind):
            acquire(lock, -1)
            held._write(keys)
        yield held
    finally:
        if lock.is_locked:
            forget(layout, path)
            lock.release()


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a lease says: the keys, which of them are held in memory, whether it is a run's."""

    keys: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()
    run: bool = False


def leases(layout: Layout) -> dict[str, frozenset[str]]:
    """Token -> keys of all leases that are held; those of dead processes are removed.

    The caller holds the registry.
    """
    return {token: listing.keys for token, listing in listings(layout).items()}


def listings(layout: Layout) -> dict[str, Listing]:
    """Token -> what the lease says; the rest is as in `leases`."""
    held: dict[str, Listing] = {}
    for path in lock_paths(layout.live):
        token = path.stem
        lock = file_lock(path)
        if acquire(lock, 0):
            forget(layout, path)
            lock.release()
        else:
            held[token] = listed(layout, token)
    return held


def listed(layout: Layout, token: str) -> Listing:
    try:
        content = json.loads((layout.live / f"{token}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Listing()
    return Listing(
        keys=frozenset(content["keys"]),
        held=frozenset(content.get("held", ())),  # presswork before 2026-12 lists keys only
        run=content.get("run", False),
    )


def forget(layout: Layout, path: Path) -> None:
    # The caller holds the lock on `path`: waiting processes notice that the file has no name.
    (layout.live / f"{path.stem}.json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
