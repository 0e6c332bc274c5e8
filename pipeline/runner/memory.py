"""Resident memory of this process: its peak per node, and giving back what a node has freed."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"

# mallopt's parameters in <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_APART = 4 << 20
_KEPT = 64 << 20


def reset_peak() -> None:
    """Start a new peak; where the system has no such thing, the peak is the process's own."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return


def keep_large_apart() -> None:
    """Let every large block be memory of its own, which goes back to the system when freed.

    glibc raises the size from which it does that up to 32 MiB by itself, and tensors below it leave
    holes in its heap that the next one may not fit: peaks then depend on the order of things.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _APART)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _KEPT)  # else it would be 128 KiB from now on


def give_back() -> None:
    """Return freed memory to the system, so that no node pays for the one before it.

    glibc keeps what is freed in holes of its own: without this, resident memory creeps up from
    layer to layer.
    """
    _glibc("malloc_trim", 0)


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; other C libraries have none of that name, and need none."""
    if sys.platform == "linux" and (function := getattr(ctypes.CDLL(None), name, None)):
        function(*arguments)


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
