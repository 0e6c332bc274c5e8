"""The worker at the other end of a Ray actor. Only Ray's processes import this module to run it."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.planning.plan import Plan
from pipeline.runner.held import HeldResult
from pipeline.runner.workers.messages import Build, Computed, Event, Follow, Forget, Setup
from pipeline.runner.workers.worker import LogToDriver, Worker

Files = Mapping[str, Any]
"""Name -> content of a file, an array of bytes: Ray moves those without a copy of its own."""

POLL = 1.0
"""Seconds after which a driver that waits for events is told that there are none."""


class Body:
    """Methods of the actor; `events` has a thread of its own, the others run in turn."""

    def __init__(self) -> None:
        self._events: SimpleQueue[Event] = SimpleQueue()
        self._computed: Computed | None = None
        self._worker: Worker | None = None

    def setup(self, setup: Setup) -> None:
        """Begin; that the worker is ready is its first event."""
        tell = self._tell
        for name in ("pipeline", "stages"):
            logging.getLogger(name).addHandler(LogToDriver(tell))
            logging.getLogger(name).setLevel(logging.INFO)
        self._worker = Worker(setup, tell)
        tell(replace(self._worker.ready(), host=socket.gethostname()))

    def follow(self, plan: Plan) -> None:
        self._the_worker.carry_out(Follow(plan=plan))

    def forget(self, keys: frozenset[str]) -> None:
        self._the_worker.carry_out(Forget(keys=keys))

    def build(
        self, name: str, wanted: Sequence[str], heads: Sequence[HeldResult], *files: Files
    ) -> Any:
        """Build a node; `heads` are inputs whose `files` come with them.

        Returns `Computed` (None where the node failed, which is an event), and the files of the
        transient results with the keys `wanted`, None for one that was not made.
        """
        worker, self._computed = self._the_worker, None
        for head, content in zip(heads, files, strict=True):
            worker.receive(head, partial(written, content))
        worker.carry_out(Build(name=name))
        found = [contents(worker.held(key)) for key in wanted]
        return (self._computed, *found) if found else self._computed

    def events(self) -> list[Event]:
        """What there is to tell by now; waits a while for the first of it."""
        try:
            found = [self._events.get(timeout=POLL)]
        except Empty:
            return []
        while not self._events.empty():
            found.append(self._events.get())
        return found

    def stop(self) -> None:
        """Wait until what is done is stored."""
        if self._worker is not None:
            self._worker.close()

    def _tell(self, event: Event) -> None:
        if isinstance(event, Computed):
            self._computed = event
        else:
            self._events.put(event)

    @property
    def _the_worker(self) -> Worker:
        if self._worker is None:
            raise RuntimeError("a worker is set up before it has anything to do")
        return self._worker


def contents(held: HeldResult | None) -> Files | None:
    """All files of a result as arrays of bytes."""
    import numpy as np

    if held is None:
        return None
    return {name: np.fromfile(held.file(name), dtype=np.uint8) for name in held.names}


def written(files: Files, folder: Path) -> dict[str, int]:
    """Write files from arrays of bytes into a new folder; their sizes."""
    folder.mkdir(parents=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content.tofile(path)
    return {name: int(content.nbytes) for name, content in files.items()}
