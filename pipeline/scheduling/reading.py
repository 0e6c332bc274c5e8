"""Measured speed of reading a file that is not in the page cache."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

BYTES = 1 << 27


def read_speed(folder: Path) -> float:
    """Bytes a second of reading from the disk of `folder`, where a file is written for it."""
    with tempfile.TemporaryFile(dir=folder) as file:
        block = os.urandom(1 << 20)
        for _ in range(BYTES // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        began = time.perf_counter()
        while file.read(len(block)):
            pass
        return BYTES / (time.perf_counter() - began)
