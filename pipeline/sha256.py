"""sha256 of a file in large steps, releasing the GIL for other threads."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import FileIO

STEP = 8 << 20
"""Bytes between two moments at which a thread needs the GIL.

Reading and hashing do without it. With steps of 256 KiB, as in hashlib, a thread waits for the GIL
longer than it works as soon as another one runs Python.
"""

_SPARE: SimpleQueue[memoryview] = SimpleQueue()
"""Buffers of that size for reuse: as many as files were hashed at the same time."""


def file_sha256(path: Path) -> str:
    """The digest in hexadecimal. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return open_sha256(file)


def open_sha256(file: FileIO) -> str:
    """The digest of an unbuffered file from where it stands to its end. Raises OSError."""
    digest = hashlib.sha256()
    size = os.fstat(file.fileno()).st_size
    buffer = memoryview(bytearray(max(1, size))) if size < STEP else _buffer()
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
    if len(buffer) == STEP:
        _SPARE.put(buffer)
    return digest.hexdigest()


def _buffer() -> memoryview:
    with suppress(Empty):
        return _SPARE.get_nowait()
    return memoryview(bytearray(STEP))
