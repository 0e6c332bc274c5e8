"""Results that workers are storing: who can read them, and waiting until they are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


class Storing:
    """Keys on their way into the store, by the worker that can read them. Safe to use from threads.

    A node may be done before it is said to be computed: a small result is stored in no time.
    """

    def __init__(self) -> None:
        self._owners: dict[str, tuple[str, str]] = {}
        self._done: set[str] = set()
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def begun(self, node: str) -> None:
        """Note that a node is about to be built."""
        with self._changed:
            self._done.discard(node)

    def computed(self, worker: str, node: str, keys: Iterable[str]) -> None:
        """Note what of a node its worker is storing."""
        with self._changed:
            if node not in self._done:
                self._owners.update(dict.fromkeys(keys, (worker, node)))

    def done(self, node: str) -> None:
        """Note that all of a node is in the store."""
        with self._changed:
            self._done.add(node)
            self._drop(lambda worker, of: of == node)

    def lost(self, worker: str) -> None:
        """Note that a worker is no more."""
        with self._changed:
            self._drop(lambda whose, of: whose == worker)

    def failed(self, node: str, error: BaseException) -> None:
        """Note that a node's results will not get there."""
        with self._changed:
            self._done.add(node)
            self._failure = error
            self._drop(lambda worker, of: of == node)

    def readable(self, key: str, worker: str) -> bool:
        """Whether a worker can read a result: it stores it itself, or it is stored."""
        owner = self._owners.get(key)
        return owner is None or owner[0] == worker

    def settle(self) -> None:
        """Wait until all is in the store. Raises what made something fail to get there."""
        with self._changed:
            self._changed.wait_for(lambda: not self._owners or self._failure is not None)
            if self._failure is not None:
                raise self._failure

    def _drop(self, which: Callable[[str, str], bool]) -> None:
        self._owners = {key: owner for key, owner in self._owners.items() if not which(*owner)}
        self._changed.notify_all()
