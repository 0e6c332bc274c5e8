"""Resident memory of this process: its peak per node, and giving back what a node has freed."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_PAGES = Path("/proc/self/statm")
_RESET_PEAK = "5"

# mallopt's parameters in <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_APART = 4 << 20
_KEPT = 64 << 20
_SPARE = 64 << 20


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


class Freed:
    """Gives what nodes have freed back to the system, so that none pays for those before it.

    glibc keeps what is freed in holes of its own: without this, resident memory creeps up from
    layer to layer. Up to `_SPARE` of it stays, for pages of a system that have to be asked for
    anew take longer than the work of a small layer.
    """

    def __init__(self) -> None:
        self._least: int | None = None

    def give_back(self) -> None:
        """Return what is free if memory has grown since it was least."""
        now = _own_bytes()
        if self._least is not None and now is not None and now <= self._least + _SPARE:
            self._least = min(self._least, now)
            return
        _glibc("malloc_trim", 0)
        self._least = _own_bytes()


def _own_bytes() -> int | None:
    """Resident memory that is no file's; None where the system does not say."""
    try:
        _, resident, shared = _PAGES.read_text().split()[:3]
    except OSError:
        return None
    return (int(resident) - int(shared)) * resource.getpagesize()


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
