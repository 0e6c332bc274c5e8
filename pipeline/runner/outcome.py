"""What a runner tells of each node, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
