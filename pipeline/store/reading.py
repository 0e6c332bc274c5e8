"""Finding an artifact, and putting aside one that is not what was committed."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from pipeline.store.artifact import StoredArtifact
from pipeline.store.layout import Layout
from pipeline.store.manifest import Corrupt, read
from pipeline.store.seals import Digests, inspect, read_seal, write_seal

Warn = Callable[[str], None]


def fetch(
    layout: Layout, key: str, *, rehash: bool, warn: Warn, digests: Digests | None = None
) -> StoredArtifact | None:
    """The artifact of `key`, or None if there is none or it is damaged (then it is put aside).

    Reads only the manifest and the files' stats; files whose stat changed since their bytes were
    last known are hashed, with `rehash` all are. `digests` takes
    those of the files.
    """
    folder = layout.entry(key)
    try:
        inode = folder.stat().st_ino
    except FileNotFoundError:
        return None
    known = {} if rehash else read_seal(layout, key)
    try:
        manifest = read(folder, key)
        stamps = inspect(folder, manifest.files, known)
    except Corrupt as damage:
        quarantine(layout, key, inode, str(damage), warn)
        return None
    if stamps != known:
        write_seal(layout, key, stamps)
    if digests is not None:
        digests.update((stamps[name], record.sha256) for name, record in manifest.files.items())
    return StoredArtifact(key=key, path=folder, manifest=manifest)


def quarantine(layout: Layout, key: str, inode: int, reason: str, warn: Warn) -> bool:
    """Move the folder of `key` to `quarantine/`, with the reason; whether it was still there."""
    folder = layout.entry(key)
    aside = layout.quarantine / f"{key}.{uuid.uuid4().hex[:8]}"
    try:
        if folder.stat().st_ino != inode:
            # Somebody rebuilt it since it was looked at.
            return False
        folder.rename(aside)
    except FileNotFoundError:
        return False
    layout.seal(key).unlink(missing_ok=True)
    aside.with_suffix(".txt").write_text(reason + "\n", encoding="utf-8")
    warn(f"the stored result {key[:12]} is damaged: {reason}. Moved to {aside}; it is built again")
    return True
