"""Hashing the whole store."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from pipeline.store.disk import walk
from pipeline.store.layout import MANIFEST, Layout
from pipeline.store.manifest import Corrupt, read
from pipeline.store.reading import Warn, quarantine
from pipeline.store.seals import inspect, write_seal


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something wrong with one artifact. `repaired`: it was put aside, to be built again."""

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
    """Check every artifact against its manifest. Files that no manifest lists are named too."""
    keys = list(layout.keys())
    findings: list[Finding] = []
    look = partial(examine, layout, repair=repair, warn=warn)
    # sha256 releases the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, found in enumerate(pool.map(look, keys), start=1):
            findings.extend(found)
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
        stamps = inspect(folder, manifest.files, {})
        stray = sorted({name for name, _ in walk(folder)} - {MANIFEST, *manifest.files})
    except Corrupt as damage:
        if not folder.exists():
            return []
        moved = repair and quarantine(layout, key, inode, str(damage), warn)
        return [Finding(key=key, node=node, problem=str(damage), repaired=moved)]
    except FileNotFoundError:
        # Freed by somebody else since it was listed.
        return []
    write_seal(layout, key, stamps)
    return [
        Finding(key=key, node=node, problem=f"{name} is not part of it", repaired=False)
        for name in stray
    ]
