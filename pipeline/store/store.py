"""The store: artifacts by key, committed in one step, checked when read."""

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
from pipeline.store.evict import bury, bury_unheld, sweep_tmp
from pipeline.store.integrity import Digests, Finding, Warn, audit, fetch
from pipeline.store.layout import Layout, checked
from pipeline.store.leases import Lease, file_lock, lease, lock_path, taken

log = logging.getLogger(__name__)

WORKERS = 8
"""Files that are hashed and brought to the disk at once."""


class Store:
    """A folder of immutable artifacts, shared by any number of processes.

    `warn` is told, in one sentence, of damage that was found and put aside; by default a log
    record. Raises UserError if the folder cannot be made or written.
    """

    def __init__(self, config: StoreConfig, *, warn: Warn = log.warning) -> None:
        self.config = config
        self.layout = Layout(root=Path(config.dir).expanduser().absolute())
        self.place = Place(root=self.layout.root)
        self.warn = warn
        self.digests: Digests = {}
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="store")
        prepare(self.layout)

    @property
    def root(self) -> Path:
        return self.layout.root

    def get(self, key: str, *, rehash: bool = False) -> StoredArtifact | None:
        """The artifact of `key`, or None if there is none that is whole.

        A hit costs a manifest and a stat per file; a file whose stat changed since its bytes were
        last known is hashed, with `rehash` every file is. A damaged artifact is moved to
        `quarantine/` with a warning, so that it is built again.
        """
        with explained(self.place):
            return fetch(self.layout, key, rehash=rehash, warn=self.warn, digests=self.digests)

    def has(self, key: str) -> bool:
        """Whether `get` would find it."""
        return self.get(key) is not None

    def check(self, key: str) -> bool:
        """Hash all files of one artifact: whether it is there and whole (if not, put aside)."""
        return self.get(key, rehash=True) is not None

    @contextmanager
    def drafts(
        self, wanted: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> Iterator[dict[str, StoredDraft]]:
        """Build outputs of one node run: output name -> (key, identity) gives drafts by output.

        The identity (kind, node, version, params, inputs, versions, ...: plain JSON) goes into
        the manifest. When the block ends normally all drafts are committed; when it raises they
        are removed. A full, read-only or unwritable disk becomes one UserError, also when the
        block's own code met it.
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
        """An empty folder on the store's disk for the time of the block."""
        with explained(self.place), self._folder([]) as folder:
            yield folder

    @contextmanager
    def _folder(self, keys: Iterable[str]) -> Iterator[Path]:
        with lease(self.layout, self.config.lock, keys) as held:
            folder = self.layout.tmp / f"{held.token}.work"
            folder.mkdir()
            try:
                yield folder
            finally:
                remove(folder)

    @contextmanager
    def lock(self, key: str, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Keep other processes from building `key` meanwhile; `on_wait` is called before waiting.

        It only saves double work (`store.lock=none` goes without): look again with `get` once
        inside.
        """
        if self.config.lock == "none":
            yield
            return
        with explained(self.place):
            held = file_lock(lock_path(self.layout.locks, checked(key), self.config.lock))
            if not taken(held, 0):
                if on_wait is not None:
                    on_wait()
                taken(held, -1)
        try:
            yield
        finally:
            held.release()

    @contextmanager
    def live(self, keys: Iterable[str]) -> Iterator[Lease]:
        """Keep garbage collection from `keys` for the time of the block, and mark them as used.

        `extend` on what it gives adds keys. Also clears away what dead processes left in `tmp/`.
        """
        wanted = frozenset(keys)
        with ExitStack() as stack:
            # Not around the block: what goes wrong in there may have nothing to do with the store.
            with explained(self.place):
                sweep_tmp(self.layout, self.config.lock)
                held = stack.enter_context(lease(self.layout, self.config.lock, wanted))
                for key in wanted:
                    self.touch(key)
            yield held

    def touch(self, key: str) -> None:
        """Note that `key` is used now, if it is there."""
        with suppress(FileNotFoundError):
            os.utime(self.layout.seal(key))

    def drop(self, key: str, *, own: Lease | None = None) -> int:
        """Remove an artifact; the bytes that went free (none of a file with other hard links).

        With `own`, the caller's lease, it stays if somebody else's lease holds it.
        """
        if own is None:
            remains = bury(self.layout, key)
        else:
            remains = bury_unheld(self.layout, self.config.lock, key, own)
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
        """Hash every file of every artifact; with `repair` what is damaged is put aside.

        `progress` is told the artifacts looked at and their number.
        """
        return audit(self.layout, repair=repair, warn=self.warn, progress=progress)

    def free_bytes(self) -> int:
        """Bytes that may still be written to the store's disk."""
        return shutil.disk_usage(self.root).free


def draft(folder: Path, output: str, key: str, identity: Mapping[str, Any]) -> StoredDraft:
    path = folder / key
    path.mkdir()
    host = {"host": socket.gethostname(), "python": platform.python_version()}
    return StoredDraft(key=key, output=output, path=path, record={**host, **identity})


def prepare(layout: Layout) -> None:
    """Make the store's folders and prove by a real file that they can be written."""
    try:
        for folder in layout.folders():
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=layout.tmp, prefix="note."):
            pass
    except OSError as error:
        raise UserError(
            f"the store {layout.root} cannot be created or written: "
            f"{error.strerror or error} ({error.filename or layout.root})",
            remedy="set store.dir to a folder that you may write",
        ) from error
