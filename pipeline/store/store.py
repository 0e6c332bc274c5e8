"""The artifact store: lookup by key, drafts with atomic commit, locks, leases, removal."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.store.artifact import StoredArtifact
from pipeline.store.config import StoreConfig
from pipeline.store.disk import remove
from pipeline.store.disk_errors import Place, explained
from pipeline.store.draft import StoredDraft, commit
from pipeline.store.entries import Entry, Ledger, entries
from pipeline.store.evict import detach, detach_unleased, sweep_tmp
from pipeline.store.integrity import READ_ONLY, Digests, Finding, Warn, audit, fetch
from pipeline.store.layout import Layout, checked
from pipeline.store.leases import Lease, NoLease, acquire, file_lock, lease, lock_path

log = logging.getLogger(__name__)

WORKERS = 8
"""Threads that hash and sync files."""


class Store:
    """A folder of immutable artifacts, shared by any number of processes.

    `warn` receives one sentence about each damaged artifact that was quarantined; by default it
    writes a log record. A store that is there and cannot be written is read all the same, and only
    what would write into it raises UserError, as does one that cannot be created.
    """

    def __init__(self, config: StoreConfig, *, warn: Warn = log.warning) -> None:
        self.config = config
        self.layout = Layout(root=Path(config.dir).expanduser().absolute())
        self.place = Place(root=self.layout.root)
        self.warn = warn
        self.digests: Digests = {}
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")
        self._refusal = prepare(self.layout)

    @property
    def writable(self) -> bool:
        """Whether it can be written, by this user and where it is mounted."""
        return self._refusal is None

    def check_writable(self) -> None:
        """Raise UserError if nothing can be built into this store."""
        if self._refusal is not None:
            raise self._refusal

    @property
    def root(self) -> Path:
        return self.layout.root

    def get(self, key: str, *, rehash: bool = False) -> StoredArtifact | None:
        """The artifact of `key`, or None if there is no intact one.

        A hit costs reading the manifest and a stat per file; a file whose stat changed since its
        content was last verified is hashed, with `rehash` every file is. A damaged artifact is
        moved to `quarantine/` with a warning, so that it is built again.
        """
        with explained(self.place):
            return fetch(self.layout, key, rehash=rehash, warn=self.warn, digests=self.digests)

    def has(self, key: str) -> bool:
        """Whether the store has an intact artifact of `key`."""
        return self.get(key) is not None

    def check(self, key: str) -> bool:
        """Hash all files of one artifact; whether it is there and intact (else quarantined)."""
        return self.get(key, rehash=True) is not None

    @contextmanager
    def drafts(
        self, wanted: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> Iterator[dict[str, StoredDraft]]:
        """Drafts for the outputs of one node, by output, from output name -> (key, identity).

        The identity (kind, node, version, params, inputs, versions, ...: plain JSON) goes into
        the manifest. When the block ends normally all drafts are committed; when it raises they
        are removed. A full, read-only or unwritable disk becomes one UserError, also where the
        code of the block ran into it.
        """
        began = time.monotonic()
        with explained(self.place), self._folder([key for key, _ in wanted.values()]) as folder:
            drafts = {output: draft(folder, output, *what) for output, what in wanted.items()}
            yield drafts
            for each in drafts.values():
                each.record.setdefault("seconds", round(time.monotonic() - began, 3))
                each.record["created"] = datetime.now(UTC).isoformat(timespec="seconds")
            commit(self.layout, list(drafts.values()), self.warn, self.digests, self._pool)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """An empty folder on the store's disk for the duration of the block."""
        with explained(self.place), self._folder([]) as folder:
            yield folder

    @contextmanager
    def _folder(self, keys: Iterable[str]) -> Iterator[Path]:
        self.check_writable()
        with lease(self.layout, self.config.lock, keys) as held:
            folder = self.layout.tmp / f"{held.token}.work"
            folder.mkdir()
            try:
                yield folder
            finally:
                remove(folder)

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep other processes from building `key`; `on_wait` is called before waiting.

        This only avoids duplicate work (`store.lock=none` does without): call `get` again once
        inside.
        """
        if self.config.lock == "none":
            yield
            return
        with explained(self.place):
            held = file_lock(lock_path(self.layout.locks, checked(key), self.config.lock))
            if not acquire(held, 0):
                if on_wait is not None:
                    on_wait()
                acquire(held, -1)
        try:
            yield
        finally:
            held.release()

    @contextmanager
    def live(self, keys: Iterable[str]) -> Iterator[Lease]:
        """Protect `keys` from garbage collection during the block, and mark them as used.

        `extend` of the lease adds keys. Also removes what dead processes left in `tmp/`.
        """
        wanted = frozenset(keys)
        if not self.writable:
            yield NoLease(self.layout)
            return
        with ExitStack() as stack:
            # Not around the block: errors in there may have nothing to do with the store.
            with explained(self.place):
                sweep_tmp(self.layout, self.config.lock)
                held = stack.enter_context(lease(self.layout, self.config.lock, wanted, run=True))
                for key in wanted:
                    self.touch(key)
            yield held

    def touch(self, key: str) -> None:
        """Mark `key` as used now, if the store has it."""
        if self.writable:
            with suppress(FileNotFoundError):
                os.utime(self.layout.seal(key))

    def drop(self, key: str, *, own: Lease | None = None) -> int:
        """Remove an artifact; returns the bytes freed (a file with other hard links frees none).

        With `own`, the caller's lease, the artifact is kept if another lease holds it.
        """
        if own is None:
            remains = detach(self.layout, key)
        else:
            remains = detach_unleased(self.layout, self.config.lock, key, own)
        if remains is None:
            return 0
        ledger = Ledger()
        ledger.add(remains)
        freed = ledger.release(remains)
        remove(remains)
        return freed

    def entries(self) -> Iterator[Entry]:
        """All artifacts with a readable manifest, by key."""
        return entries(self.layout)

    def verify(
        self, repair: bool = True, progress: Callable[[int, int], None] | None = None
    ) -> list[Finding]:
        """Hash every file of every artifact; with `repair` damaged ones are quarantined.

        `progress` receives the number of artifacts checked and their total.
        """
        return audit(self.layout, repair=repair, warn=self.warn, progress=progress)

    def free_bytes(self) -> int:
        """Free space on the store's disk in bytes."""
        return shutil.disk_usage(self.root).free


def draft(folder: Path, output: str, key: str, identity: Mapping[str, Any]) -> StoredDraft:
    path = folder / key
    path.mkdir()
    host = {"host": socket.gethostname(), "python": platform.python_version()}
    return StoredDraft(key=key, output=output, path=path, record={**host, **identity})


def prepare(layout: Layout) -> UserError | None:
    """Create the store's folders, and check with a real file that they can be written.

    Returns why they cannot, where there is a store to read from. Raises UserError otherwise.
    """
    try:
        for folder in layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=layout.tmp, prefix="note."):
            pass
    except OSError as error:
        refusal = UserError(
            f"the store {layout.root} cannot be created or written: "
            f"{error.strerror or error} ({error.filename or layout.root})",
            remedy="set store.dir to a folder that you may write",
        )
        if error.errno in READ_ONLY and readable(layout):
            return refusal
        raise refusal from error
    return None


def readable(layout: Layout) -> bool:
    """Whether there is a folder whose artifacts this user may list."""
    return layout.root.is_dir() and os.access(layout.root, os.R_OK | os.X_OK)
