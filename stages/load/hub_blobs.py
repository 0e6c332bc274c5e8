"""Compare small files in the hub's cache with the digests by which the cache names them.

A key holds a hub model's commit, not its files' content. The cache has a file under the entity tag
that the hub gave it: git's own digest of its blob, the sha256 of a large file, or on some mirrors
the plain sha1. A config that was edited there would be stored as if the commit had it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha1, sha256
from pathlib import Path

from pipeline.errors import UserError
from stages.weights.checkpoint_files import home_of

HEX = frozenset("0123456789abcdef")
SHA1, SHA256 = 40, 64
"""Digits of a digest."""


def check_small(paths: Iterable[Path]) -> None:
    """Raise UserError for the first file of a snapshot that is not as the hub has it.

    Files that the cache does not name by a digest, as where it can make no links, are passed over.
    """
    for path in paths:
        blob = path.resolve()
        cached = blob.parent.name == "blobs" and home_of(path.parent) == blob.parent.parent
        if cached and not set(blob.name) - HEX and blob.name not in _digests(path, blob.name):
            raise UserError(
                f"{path} in the hub's cache is not as the hub has it: it was edited there, or "
                "written only in part",
                remedy=f"remove {blob} and run again: it is fetched anew; to use your version, "
                "copy the folder elsewhere and say model=local model.path=DIR",
            )


def _digests(path: Path, name: str) -> frozenset[str]:
    """What a file may be named by, if its name has the length of a digest; else the name itself."""
    if len(name) not in (SHA1, SHA256):
        return frozenset({name})
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if len(name) == SHA256:
        return frozenset({sha256(data).hexdigest()})
    git = sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    git.update(data)
    return frozenset({git.hexdigest(), sha1(data, usedforsecurity=False).hexdigest()})
