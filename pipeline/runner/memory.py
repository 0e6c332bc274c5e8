"""Resident memory of this process: peak per node, and returning freed memory to the system."""

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
    """Reset the recorded peak; on systems that cannot, it remains that of the whole process."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return


def keep_large_apart() -> None:
    """Make glibc map every large block separately, so that freeing it returns it to the system.

    glibc raises the threshold for that up to 32 MiB by itself. Tensors below it leave holes in the
    heap that the next one may not fit into, and peaks then depend on the order of allocations.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _APART)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _KEPT)  # else it would be 128 KiB from now on


class Freed:
    """Return memory that nodes have freed to the system, so that none pays for those before it.

    glibc keeps freed memory in its heap: without this, resident memory creeps up from node to
    node. Up to `_SPARE` bytes stay, since requesting pages anew takes longer than a small node.
    """

    def __init__(self) -> None:
        self._least: int | None = None

    def give_back(self) -> None:
        """Trim the heap if resident memory has grown since its lowest point."""
        now = _own_bytes()
        if self._least is not None and now is not None and now <= self._least + _SPARE:
            self._least = min(self._least, now)
            return
        _glibc("malloc_trim", 0)
        self._least = _own_bytes()


def _own_bytes() -> int | None:
    """Resident memory that does not map a file; None where the system does not report it."""
    try:
        _, resident, shared = _PAGES.read_text().split()[:3]
    except OSError:
        return None
    return (int(resident) - int(shared)) * resource.getpagesize()


def _glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; other C libraries do not have it, and do not need it."""
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
