"""Telling whether files are still what was committed, without reading them each time.

A seal remembers, outside the artifact, the size, mtime and inode that each file had when its
bytes were last known to be right. Any write moves the mtime, so a file whose stat equals its seal
is trusted and any other is hashed again. A store copied to another disk is hashed once.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pipeline.sha256 import file_sha256
from pipeline.store.disk import replace_text
from pipeline.store.layout import Layout
from pipeline.store.manifest import Corrupt, FileRecord

Stamp = tuple[int, int, int]
Digests = dict[Stamp, str]
"""sha256 of files whose bytes this process wrote or trusts, by their stamp."""


def stamp(status: os.stat_result) -> Stamp:
    """(size in bytes, mtime in ns, inode)."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def inspect(
    folder: Path, files: Mapping[str, FileRecord], known: Mapping[str, Stamp]
) -> dict[str, Stamp]:
    """Check the files of an artifact and return their stamps.

    Hashes those whose stat differs from `known`. Raises Corrupt at the first that is missing or
    differs from its record, PermissionError for one that may not be read.
    """
    stamps: dict[str, Stamp] = {}
    for name, record in files.items():
        path = folder / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise Corrupt(f"{name} is not a plain file")
            if status.st_size != record.size:
                raise Corrupt(f"{name} has {status.st_size} bytes instead of {record.size}")
            stamps[name] = stamp(status)
            if stamps[name] != known.get(name) and file_sha256(path) != record.sha256:
                raise Corrupt(f"{name} has other bytes than were written (sha256 differs)")
        except PermissionError:
            raise
        except FileNotFoundError:
            raise Corrupt(f"{name} is missing") from None
        except OSError as error:
            raise Corrupt(f"{name} cannot be read: {error}") from error
    return stamps


def read_seal(layout: Layout, key: str) -> dict[str, Stamp]:
    """The stamps remembered for `key`; empty if there are none or they cannot be read."""
    try:
        content = json.loads(layout.seal(key).read_text(encoding="utf-8"))
        return {str(name): (int(s), int(m), int(i)) for name, (s, m, i) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_seal(layout: Layout, key: str, stamps: Mapping[str, Stamp]) -> None:
    # Without a seal the next reader hashes again: a full disk must not make a hit fail.
    with suppress(OSError):
        replace_text(layout.seal(key), json.dumps(stamps), tmp=layout.tmp)
