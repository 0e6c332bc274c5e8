"""Resident memory of this process: peak per node, and returning freed memory to the system."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_PAGES = Path("/proc/self/statm")
_RESET_PEAK = "5"

# mallopt's parameters in <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_APART = 32 << 20
_KEPT = 256 << 20
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""The environment variable by which torch asks for huge pages for tensors of 2 MiB and more."""
_SPARE = 64 << 20


def reset_peak() -> None:
    """Reset the recorded peak; on systems that cannot, it remains that of the whole process."""
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK)
    except OSError:
        return


def keep_large_apart() -> None:
    """Make glibc map every large block separately, and keep what smaller ones leave in its heap.

    A block of its own is returned to the system when it is freed, and all its pages are faults
    when the next one is written: a calibration is mostly tensors of some MiB, which took an eighth
    of a job's processor time that way. So those come from the heap, up to the threshold
    that glibc would reach by itself, and `Freed` trims it between nodes; larger ones have huge
    pages where the system gives them, which makes their faults few.
    """
    _glibc("mallopt", _M_MMAP_THRESHOLD, _APART)
    _glibc("mallopt", _M_TRIM_THRESHOLD, _KEPT)
    os.environ.setdefault(_HUGE_PAGES, "1")  # torch reads it at its first large tensor


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
