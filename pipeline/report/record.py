"""Records of a run and its nodes, from which reports are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

NodeStatus = Literal["built", "hit", "waited", "idle"]
RunStatus = Literal["ok", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeRecord:
    """One node of a run.

    `status` is `built` (this run did the work), `hit` (the store had the result), `waited`
    (another process built it meanwhile) or `idle` (nothing that had to be built needed it).
    `keys` maps outputs to their keys in the store. `started` is in seconds since the epoch.
    `seconds`, `peak_rss_bytes`, `peak_device_bytes` (None where no GPU was used) and `bytes` are of
    this run; `recorded_seconds` is the time of building the result, and `metas` are what the stage
    recorded with each stored output. `stored` is when they were written, hashed and synced beside
    other nodes: start in seconds since the epoch, and seconds. `worker` is the process that built
    it, empty where there is but one.
    """

    name: str
    kind: str
    keys: Mapping[str, str]
    status: NodeStatus
    started: float
    seconds: float
    peak_rss_bytes: int
    bytes: int
    recorded_seconds: float = 0.0
    metas: tuple[Mapping[str, Any], ...] = ()
    peak_device_bytes: int | None = None
    stored: tuple[float, float] | None = None
    worker: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """One run. `config` and `plan` are plain data; `warnings` are those known before it started.

    `checkpoint` is None if none was written; `resume` is the command that continues, `command` the
    one that was given, quoted for a shell. `passing` has the bytes of transient results:
    `held_bytes` at most in memory, `copied_bytes` to the store. `beside` tells of the work beside
    nodes: seconds of storing, seconds that nodes waited for it, and bytes that the
    system was asked to read ahead.
    """

    run_dir: Path
    status: RunStatus
    nodes: tuple[NodeRecord, ...]
    config: Mapping[str, Any]
    plan: Any
    started: float
    seconds: float
    checkpoint: Path | None = None
    warnings: tuple[str, ...] = ()
    error: str | None = None
    resume: str = ""
    command: str = ""
    passing: Mapping[str, int] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
