"""Callbacks of a runner: start, node started, progress, node finished, message, stop."""

from __future__ import annotations

from typing import Protocol


class Watcher(Protocol):
    """Listener for the progress of a run: totals at the start, then node by node."""

    def start(self, total: int, reused: int) -> None: ...

    def node_started(self, name: str) -> None: ...

    def update(self, name: str, fraction: float, text: str) -> None: ...

    def node_finished(self, name: str, seconds: float) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...
