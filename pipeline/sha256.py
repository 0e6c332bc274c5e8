"""sha256 of a file, in steps that leave the interpreter to other threads."""

from __future__ import annotations

import hashlib
from pathlib import Path

STEP = 8 << 20
"""Bytes between two moments at which a thread asks for the interpreter.

Reading and hashing do without it. Asked for every 256 KiB, as hashlib does, it is waited for longer
than the work takes as soon as another thread runs Python.
"""


def file_sha256(path: Path) -> str:
    """The digest in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        buffer = memoryview(bytearray(min(STEP, max(1, path.stat().st_size))))
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()
