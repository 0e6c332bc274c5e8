"""Running out of memory, of the host or of a GPU, told from other errors; torch is not imported."""

from __future__ import annotations

import errno
import logging
import sys
from traceback import clear_frames
from typing import Literal

from pipeline.errors import StageFailed, causes

log = logging.getLogger(__name__)

Exhausted = Literal["GPU", "machine"]

SHOWN = 200
"""Characters of an allocator's message that are shown: its first sentences."""

GPU_TEXTS = ("CUDA out of memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED")
HOST_TEXTS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
)


def exhausted(error: BaseException) -> Exhausted | None:
    """Whose memory ran out, where that is what `error` or one of its causes says."""
    for cause in causes(error):
        if isinstance(cause, MemoryError) or _errno(cause) == errno.ENOMEM:
            return "machine"
        text = str(cause)
        if _is_torchs(cause) or (isinstance(cause, RuntimeError) and _has(text, GPU_TEXTS)):
            return "GPU"
        if isinstance(cause, RuntimeError) and _has(text, HOST_TEXTS):
            return "machine"
    return None


def too_little(node: str, whose: Exhausted, lighter: str, error: BaseException) -> StageFailed:
    """The error for a node that ran out of memory; `lighter` is what to change in the config.

    What the functions that failed still hold, tensors above all, is let go.
    """
    log.debug("%s ran out of memory", node, exc_info=error)
    text = next(iter(str(error).splitlines()), type(error).__name__)[:SHOWN]
    for cause in causes(error):
        clear_frames(cause.__traceback__)
    larger = "a GPU with more memory or device=cpu" if whose == "GPU" else "a larger machine"
    remedy = f"{lighter}; or use {larger}" if lighter else f"use {larger}"
    return StageFailed(
        f"{node}: the memory of the {whose} ran out: {text}",
        remedy=f"{remedy}. What was finished before is kept",
    )


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def _has(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)


def _is_torchs(error: BaseException) -> bool:
    kind = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    return kind is not None and isinstance(error, kind)
