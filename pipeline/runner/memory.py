"""Resident memory of this process: its peak per node, and giving back what a node has freed."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"


def reset_peak() -> None:
    """Start a new peak; where the system has no such thing, the peak is the process's own."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return


def give_back() -> None:
    """Return freed memory to the system, so that no node pays for the one before it.

    glibc keeps what is freed in holes of its own: without this, resident memory creeps up from
    layer to layer. Other C libraries have no such call, and need none.
    """
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def peak_rss_bytes() -> int:
    """The highest resident size since `reset_peak` (or since the process began), in bytes."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
