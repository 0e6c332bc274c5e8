"""Leases: which keys and temporary folders belong to a process that still runs."""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.store.disk import replace_text
from pipeline.store.layout import Layout
from pipeline.store.locks import file_lock, lock_path, lock_paths, registry, taken
from pipeline.store.trouble import Place, explained


class Lease:
    """Keys that must not be freed, and a token that marks temporary folders as in use.

    It lasts as long as its lock file is held: when the process dies, however it dies, it is over.
    (With store.lock other than flock, a process that died on another host keeps its lease until
    its files in `live/` are removed.)
    """

    def __init__(self, layout: Layout, kind: str, token: str) -> None:
        self.token = token
        self.keys: frozenset[str] = frozenset()
        self._layout = layout
        self._kind = kind

    def extend(self, keys: Iterable[str]) -> None:
        """Hold these keys too. What is found in the store after this call stays there."""
        with explained(Place(root=self._layout.root)), registry(self._layout, self._kind):
            self._write(keys)

    def _write(self, keys: Iterable[str]) -> None:
        self.keys |= frozenset(keys)
        content = {"host": socket.gethostname(), "pid": os.getpid(), "keys": sorted(self.keys)}
        listing = self._layout.live / f"{self.token}.json"
        replace_text(listing, json.dumps(content), tmp=self._layout.tmp)


@contextmanager
def lease(layout: Layout, kind: str, keys: Iterable[str]) -> Iterator[Lease]:
    """A lease on `keys` for the time of the `with` block."""
    token = uuid.uuid4().hex
    path = lock_path(layout.live, token, kind)
    lock = file_lock(path)
    held = Lease(layout, kind, token)
    try:
        # The register is held meanwhile: a file that is there but not locked yet looks dead.
        with registry(layout, kind):
            taken(lock, -1)
            held._write(keys)
        yield held
    finally:
        if lock.is_locked:
            forget(layout, path)
            lock.release()


def leases(layout: Layout) -> dict[str, frozenset[str]]:
    """Token -> keys of all leases that are held, those of dead processes being removed.

    The caller holds the registry.
    """
    held: dict[str, frozenset[str]] = {}
    for path in lock_paths(layout.live):
        token = path.stem
        lock = file_lock(path)
        if taken(lock, 0):
            forget(layout, path)
            lock.release()
        else:
            held[token] = listed(layout, token)
    return held


def listed(layout: Layout, token: str) -> frozenset[str]:
    try:
        content = json.loads((layout.live / f"{token}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return frozenset()
    return frozenset(content["keys"])


def forget(layout: Layout, path: Path) -> None:
    # The caller holds the lock on `path`: who waits on the file sees that it has no name any more.
    (layout.live / f"{path.stem}.json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
