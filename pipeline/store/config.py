"""Config of the store: folder, kind of lock, size limit."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import UserError

LOCKS = ("flock", "soft", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreConfig:
    """Where artifacts are kept and for how long.

    `dir` is the store's folder. `lock` is how processes wait for each other: `flock` (the
    kernel's), `soft` (marker files, for file systems without flock) or `none` (two runs may do
    the same work twice; results are right all the same). `max_bytes` is the size that
    garbage collection goes down to when it is not told another. `keep_activations` keeps the
    activations of every layer boundary. Without it they are held in memory during the run: of every
    `copy_every`-th boundary, and when `copy_seconds` have passed since the last, a copy is written
    to the store in the background, for a killed run to go on from; it replaces the one before.
    """

    dir: str = "outputs/store"
    lock: str = "flock"
    max_bytes: int | None = field(default=None, metadata={"unit": "bytes"})
    keep_activations: bool = False
    copy_every: int = 8
    copy_seconds: float = field(default=900.0, metadata={"unit": "seconds"})

    def __post_init__(self) -> None:
        if not self.dir:
            raise UserError("store.dir is empty", remedy="name a folder: store.dir=outputs/store")
        if self.lock not in LOCKS:
            raise UserError(
                f"store.lock={self.lock!r} is not a kind of lock",
                remedy=f"use one of {', '.join(LOCKS)}",
            )
        if self.copy_every < 1:
            raise UserError(
                f"store.copy_every={self.copy_every} is no number of layers",
                remedy="give 1 or more; 1 copies every boundary",
            )
        if not 0 <= self.copy_seconds < float("inf"):
            raise UserError(
                f"store.copy_seconds={self.copy_seconds} is no number of seconds",
                remedy="give 0 or more; 0 copies every boundary",
            )
        if self.max_bytes is not None and self.max_bytes < 0:
            raise UserError(
                f"store.max_bytes={self.max_bytes} is negative",
                remedy="give a number of bytes, or null for no bound",
            )
