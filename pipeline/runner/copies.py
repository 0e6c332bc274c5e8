"""Durable copies of held results, so that a killed run repeats little.

What one member of a graph hands to the next makes a chain. Every so many results of a chain, or
seconds, the newest is copied to the store by a thread of its own; the copy before it is dropped
once the new one is committed. After a kill the plan goes on from the last copy.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.runner.held import Holdings
from pipeline.store import Lease, Store
from pipeline.store.disk import human

log = logging.getLogger(__name__)

AT_STOP = 4 << 30
"""Bytes that are still copied when a run stops by an error or Ctrl-C: some seconds of writing."""

_NO_COPY = (UserError, OSError, MemoryError, RuntimeError)
"""What keeps a copy from being made: a disk or a memory that is full (torch says RuntimeError)."""


@dataclass(slots=True)
class _Chain:
    """`made` are keys in order; `stored` those in the store, the newest last; `released` those that
    no node reads any more."""

    copied_at: float
    since: int = 0
    made: list[str] = field(default_factory=list)
    stored: list[str] = field(default_factory=list)
    released: set[str] = field(default_factory=set)

    def add(self, key: str) -> None:
        """Note that a key is in the store; one of an earlier run is older than all."""
        if key not in self.stored:
            self.stored.append(key)
            self.stored.sort(key=lambda k: self.made.index(k) if k in self.made else -1)

    def superseded(self) -> list[str]:
        """Take out the copies that neither a reader nor a resumed run needs."""
        gone = [key for key in self.stored[:-1] if key in self.released]
        self.stored = [key for key in self.stored if key not in gone]
        return gone


class Copies:
    """Copies of the results that `holdings` has, to `store`; `live` is the run's lease there.

    `settle` waits until all that the run has made before is in the store: a copy takes the place
    of an older one, from which that could be made again.
    """

    def __init__(
        self,
        store: Store,
        holdings: Holdings,
        live: Lease,
        *,
        every: int,
        seconds: float,
        settle: Callable[[], None],
    ) -> None:
        self.bytes = 0
        self._store, self._holdings, self._live = store, holdings, live
        self._every, self._seconds, self._settle = every, seconds, settle
        self._chains: dict[str, _Chain] = {}
        self._began = time.monotonic()
        self._lock, self._telling = threading.Lock(), threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="copies")
        self._writing: Future[None] | None = None
        self._stopped = threading.Event()
        self._copied: set[str] = set()
        self._expected: set[str] = set()

    def expect(self, keys: Iterable[str]) -> None:
        """Note results that are not stored now, and need not be when the run is done.

        Another run may store one for us, or be in need of it when we would drop it.
        """
        self._expected |= frozenset(keys)

    def made(self, name: str, key: str) -> None:
        """Note the next result of the chain `name`; copy it in the background if it is time to."""
        with self._lock:
            chain = self._chain(name)
            chain.made.append(key)
            chain.since += 1
            now = time.monotonic()
            due = chain.since >= self._every or now - chain.copied_at >= self._seconds
            if not due or (self._writing is not None and not self._writing.done()):
                return
            chain.since, chain.copied_at = 0, now
            self._writing = self._pool.submit(self._in_background, name, key)

    def released(self, name: str, key: str) -> None:
        """Let go of a result of a chain that no node reads any more.

        One in the store, also from an earlier run, stays until there is a newer copy.
        """
        self._holdings.drop(key)
        stored = self._store.has(key)
        with self._lock:
            chain = self._chain(name)
            chain.released.add(key)
            if stored:
                chain.add(key)
        self._prune(name)

    def drop(self, key: str) -> None:
        """Let go of a result that is no part of a chain."""
        self._holdings.drop(key)
        if self._store.has(key):
            self._drop(key)

    def hand_over(self, name_of: Callable[[str], str | None]) -> None:
        """Store what other live runs want and cannot see; they wait for it.

        `name_of` gives the chain of a key, None if it is part of none.
        """
        with self._telling:
            wanted = self._live.hold(self._holdings.keys() - self._copied)
        for key in wanted:
            self._write(name_of(key), key, lambda: False)

    def save(self) -> None:
        """Copy the newest result of every chain, because the run stops before its end."""
        self._end_writing()
        with self._lock:
            newest = {name: chain.made[-1] for name, chain in self._chains.items() if chain.made}
            stored = {key for chain in self._chains.values() for key in chain.stored}
        there = {
            name: result
            for name, key in newest.items()
            if key not in stored and (result := self._holdings.get(key)) is not None
        }
        size = sum(result.bytes for result in there.values())
        if size > AT_STOP:
            log.info("what is held has %s: too much to copy it now", human(size))
            return
        for name, result in there.items():
            try:
                self._write(name, result.key, lambda: False)
            except _NO_COPY as error:
                log.warning("no copy of %s: %s", result.record.get("node"), error)
                return

    def finish(self) -> None:
        """Drop all copies: the run is done."""
        self._end_writing()
        with self._lock:
            gone = {key for c in self._chains.values() for key in c.stored if key in c.released}
        gone = {key for key in gone | self._expected if self._store.has(key)}
        if gone:
            self._live.forgo(frozenset(gone))  # of two runs, the second one to say so drops them
        for key in gone:
            self._drop(key)

    def pause(self) -> None:
        """Wait until no copy is being written; another may be begun."""
        self._end_writing()
        self._stopped.clear()

    def close(self) -> None:
        self._end_writing()
        self._pool.shutdown()

    def _chain(self, name: str) -> _Chain:
        return self._chains.setdefault(name, _Chain(copied_at=self._began))

    def _in_background(self, name: str, key: str) -> None:
        try:
            self._write(name, key, self._stopped.is_set)
        except _NO_COPY as error:
            log.warning("no durable copy of %s in the store: %s", key[:12], error)

    def _write(self, name: str | None, key: str, stop: Callable[[], bool]) -> None:
        """Copy one result, unless it is gone or `stop` says so on the way."""
        with self._holdings.pinned(key) as held:
            if held is None:
                return
            self._settle()
            began = time.monotonic()
            try:
                with self._store.drafts({held.output: (key, held.record)}) as drafts:
                    if not held.copy_to(drafts[held.output], stop):
                        raise _Stopped
            except _Stopped:
                return
            log.info(
                "durable copy of %s: %s in %.2f s",
                held.record.get("node", key[:12]),
                human(held.bytes),
                time.monotonic() - began,
            )
        with self._lock:
            self.bytes += held.bytes
            self._copied.add(key)
            if name is not None:
                self._chain(name).add(key)
        if name is not None:
            self._prune(name)

    def _prune(self, name: str) -> None:
        with self._lock:
            gone = self._chain(name).superseded()
        for key in gone:
            self._drop(key)

    def _drop(self, key: str) -> None:
        self._store.drop(key, own=self._live)
        with self._lock:
            self._copied.discard(key)

    def _end_writing(self) -> None:
        self._stopped.set()
        if self._writing is not None:
            self._writing.result()


class _Stopped(Exception):
    """The copy is not needed any more."""
