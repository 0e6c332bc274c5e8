"""Integrity of artifacts: full audits, checks on reading, and seals that avoid rehashing.

A seal records, outside the artifact, the size, mtime and inode that each file had when its content
was last known to be correct. Any write changes the mtime, so a file whose stat equals its seal is
trusted and any other is hashed again. A store copied to another disk is hashed once.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.sha256 import file_sha256
from pipeline.store.artifact import Corrupt, FileRecord, StoredArtifact, read
from pipeline.store.disk import replace_text, walk
from pipeline.store.disk_errors import DENIED
from pipeline.store.layout import MANIFEST, Layout

Stamp = tuple[int, int, int]
Digests = dict[Stamp, str]
"""Stamp -> sha256 of files whose content this process wrote or trusts."""


def stamp(status: os.stat_result) -> Stamp:
    """(size in bytes, mtime in ns, inode)."""
    return status.st_size, status.st_mtime_ns, status.st_ino


def inspect(
    folder: Path,
    files: Mapping[str, FileRecord],
    known: Mapping[str, Stamp],
    trusted: Mapping[Stamp, str],
) -> dict[str, Stamp]:
    """Check the files of an artifact and return their stamps.

    Hashes those whose stat is not that in `known`, nor in `trusted`. Raises Corrupt at the first
    that is missing or differs from its record, PermissionError for one that must not be read.
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
            if stamps[name] == known.get(name) or trusted.get(stamps[name]) == record.sha256:
                continue
            if file_sha256(path) != record.sha256:
                raise Corrupt(f"{name} has other bytes than were written (sha256 differs)")
        except PermissionError:
            raise
        except FileNotFoundError:
            raise Corrupt(f"{name} is missing") from None
        except OSError as error:
            raise Corrupt(f"{name} cannot be read: {error}") from error
    return stamps


def read_seal(layout: Layout, key: str) -> dict[str, Stamp]:
    """The stamps recorded for `key`; empty if there are none or they cannot be read."""
    try:
        content = json.loads(layout.seal(key).read_text(encoding="utf-8"))
        return {str(name): (int(s), int(m), int(i)) for name, (s, m, i) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def write_seal(layout: Layout, key: str, stamps: Mapping[str, Stamp]) -> None:
    # Without a seal the next reader hashes again: a full disk must not make a hit fail.
    with suppress(OSError):
        replace_text(layout.seal(key), json.dumps(stamps), tmp=layout.tmp)


Warn = Callable[[str], None]

READ_ONLY = (errno.EROFS, *DENIED)


def fetch(
    layout: Layout, key: str, *, rehash: bool, warn: Warn, digests: Digests | None = None
) -> StoredArtifact | None:
    """The artifact of `key`, or None if there is none or it is damaged (then it is quarantined).

    Reads only the manifest and the files' stats; files whose stat changed since their content was
    last verified are hashed, with `rehash` all are. Their digests are added to `digests`.
    """
    folder = layout.entry(key)
    try:
        inode = folder.stat().st_ino
    except FileNotFoundError:
        return None
    known = {} if rehash else read_seal(layout, key)
    try:
        manifest = read(folder, key)
        stamps = inspect(folder, manifest.files, known, {} if rehash else digests or {})
    except Corrupt as damage:
        quarantine(layout, key, inode, str(damage), warn)
        return None
    if stamps != known:
        write_seal(layout, key, stamps)
    if digests is not None:
        digests.update((stamps[name], record.sha256) for name, record in manifest.files.items())
    return StoredArtifact(key=key, path=folder, manifest=manifest)


def quarantine(layout: Layout, key: str, inode: int, reason: str, warn: Warn) -> bool:
    """Move the folder of `key` to `quarantine/` with the reason; False if gone or rebuilt.

    In a store that cannot be written it stays where it is, and counts as missing all the same.
    """
    folder = layout.entry(key)
    aside = layout.quarantine / f"{key}.{uuid.uuid4().hex[:8]}"
    try:
        if folder.stat().st_ino != inode:
            # Another process rebuilt it since it was checked.
            return False
        folder.rename(aside)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        warn(f"the stored result {key[:12]} is damaged: {reason}. It stays in {folder}: {error}")
        return False
    layout.seal(key).unlink(missing_ok=True)
    aside.with_suffix(".txt").write_text(reason + "\n", encoding="utf-8")
    warn(f"the stored result {key[:12]} is damaged: {reason}. Moved to {aside}; it is built again")
    return True


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A problem of one artifact. `repaired`: it was quarantined, to be built again."""

    key: str
    node: str
    problem: str
    repaired: bool


def audit(
    layout: Layout,
    *,
    repair: bool,
    warn: Warn,
    progress: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Check every artifact against its manifest. Files that no manifest lists are findings too."""
    keys = list(layout.keys())
    findings: list[Finding] = []
    check = partial(examine, layout, repair=repair, warn=warn)
    # sha256 releases the GIL, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, problems in enumerate(pool.map(check, keys), start=1):
            findings.extend(problems)
            if progress is not None:
                progress(done, len(keys))
    return findings


def examine(layout: Layout, key: str, *, repair: bool, warn: Warn) -> list[Finding]:
    folder = layout.entry(key)
    node = "?"
    try:
        inode = folder.stat().st_ino
        manifest = read(folder, key)
        node = manifest.record.get("node", "?")
        stamps = inspect(folder, manifest.files, {}, {})
        stray = sorted({name for name, _ in walk(folder)} - {MANIFEST, *manifest.files})
    except Corrupt as damage:
        if not folder.exists():
            return []
        moved = repair and quarantine(layout, key, inode, str(damage), warn)
        return [Finding(key=key, node=node, problem=str(damage), repaired=moved)]
    except FileNotFoundError:
        # Freed by another process since it was listed.
        return []
    write_seal(layout, key, stamps)
    return [
        Finding(key=key, node=node, problem=f"{name} is not part of it", repaired=False)
        for name in stray
    ]
