"""What a runner tells of each node, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One node after a run. `started` and `seconds` are wall time; `bytes` is what it stored.

    `status` is `built` where this run did the work, `hit` where the store had the result,
    `waited` where another process built it meanwhile.
    """

    name: str
    status: Literal["built", "hit", "waited"]
    started: float
    seconds: float
    peak_rss_bytes: int
    bytes: int


class Watcher(Protocol):
    """Follows a run as it goes: the live display, or nothing."""

    def start(self, total: int, reused: int) -> None: ...

    def node_started(self, name: str) -> None: ...

    def update(self, name: str, fraction: float, text: str) -> None: ...

    def node_finished(self, name: str, seconds: float) -> None: ...

    def message(self, text: str) -> None: ...

    def stop(self) -> None: ...
