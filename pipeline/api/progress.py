"""Progress of a call from Python, as values for a callback."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.report.units import counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """One report: `done` of `total` nodes are built, `node` is at `fraction` (0 to 1) of its work.

    `text` says what it is at; for messages of the run, such as warnings, `node` is empty.
    """

    done: int
    total: int
    node: str = ""
    fraction: float = 0.0
    text: str = ""


Callback = Callable[[Progress], None]


class Reporting:
    """Listener of a run that hands each report to a callback, from one thread at a time.

    An exception of the callback ends the run, as an interruption does; what was built is kept.
    """

    def __init__(self, callback: Callback | None) -> None:
        self._callback = callback
        self._lock = threading.RLock()
        self._done = self._total = 0

    def start(self, total: int, reused: int) -> None:
        self._done, self._total = 0, total
        self._tell(text=f"{counted(total, 'node')} to run, {reused} reused")

    def node_started(self, name: str) -> None:
        self._tell(node=name)

    def update(self, name: str, fraction: float, text: str) -> None:
        self._tell(node=name, fraction=fraction, text=text)

    def node_finished(self, name: str, seconds: float) -> None:
        with self._lock:
            self._done += 1
            self._tell(node=name, fraction=1.0, text=f"built in {seconds:.1f} s")

    def message(self, text: str) -> None:
        self._tell(text=text)

    def stop(self) -> None:
        pass

    def _tell(self, *, node: str = "", fraction: float = 0.0, text: str = "") -> None:
        if self._callback is None:
            return
        with self._lock:
            self._callback(
                Progress(
                    done=self._done, total=self._total, node=node, fraction=fraction, text=text
                )
            )
