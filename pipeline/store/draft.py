"""A result being built, and what turns its folder into one that can be committed."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import StageFailed
from pipeline.key import Json
from pipeline.sha256 import file_sha256
from pipeline.store.disk import folders, sync, walk
from pipeline.store.layout import MANIFEST
from pipeline.store.manifest import FileRecord, inside, render
from pipeline.store.seals import Digests, Stamp, stamp


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDraft:
    """Files go under `path`, plain JSON about the result into `meta`.

    `record` goes into the manifest beside `meta`: it starts as the identity that the draft was
    opened with, and the runner adds what is known at the end (seconds, peak_rss_bytes, warnings).
    """

    key: str
    output: str
    path: Path
    meta: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    def write_json(self, name: str, value: Json) -> None:
        """Write one JSON file. Raises StageFailed for what JSON cannot say, NaN for one."""
        if not inside(name):
            raise ValueError(f"{name!r} is not a name for a file of a result")
        try:
            text = json.dumps(value, indent=1, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise StageFailed(
                f"{name} of {self.label} cannot be written as JSON: {error}"
            ) from error
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n", encoding="utf-8")

    @property
    def label(self) -> str:
        return f"{self.record.get('node', self.key[:12])}.{self.output}"


def seal_draft(draft: StoredDraft, pool: Executor, known: Digests) -> dict[str, Stamp]:
    """Make a draft's folder final: read-only files, all on the disk, the manifest written last.

    `known` has digests of files that are sealed already: a hard link to one is not read again.
    Returns the stamps of its files. Raises StageFailed for links and for a file that takes the
    manifest's name.
    """
    names = sorted(files_of(draft))
    paths = [draft.path / name for name in names]
    marks = list(pool.map(freeze, paths))
    syncing = [pool.submit(sync, path) for path in paths]  # the disk writes while cores hash
    hashes = list(pool.map(partial(digest_of, known=known), paths, marks))
    for future in syncing:
        future.result()
    sealed = {
        name: (FileRecord(size=mark[0], sha256=sha), mark)
        for name, mark, sha in zip(names, marks, hashes, strict=True)
    }
    known.update((mark, record.sha256) for record, mark in sealed.values())
    try:
        body = {**draft.record, "key": draft.key, "output": draft.output, "meta": draft.meta}
        text = render(body, {name: record for name, (record, _) in sealed.items()})
    except (ValueError, TypeError) as error:
        raise StageFailed(f"what {draft.label} says about itself is not JSON: {error}") from error
    manifest = draft.path / MANIFEST
    manifest.write_text(text, encoding="utf-8")
    manifest.chmod(0o444)
    list(pool.map(sync, [manifest, *folders(draft.path)]))
    return {name: mark for name, (_, mark) in sealed.items()}


def files_of(draft: StoredDraft) -> Iterable[str]:
    for name, entry in walk(draft.path):
        if not entry.is_file(follow_symlinks=False):
            # What a link points to may change or go, and a result is for ever.
            raise StageFailed(f"{name} of {draft.label} is a link, not a plain file")
        if name == MANIFEST:
            raise StageFailed(f"{draft.label} has a file {MANIFEST}; that name is the store's")
        yield name


def freeze(path: Path) -> Stamp:
    """Make a file read-only and this draft's own, or a link to one that is; returns its stamp."""
    status = path.stat()
    if status.st_nlink > 1 and status.st_mode & 0o222:
        # A writable file with a second name is somebody else's: keep a copy, leave theirs alone.
        unshare(path)
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    return stamp(path.stat())


def digest_of(path: Path, mark: Stamp, known: Digests) -> str:
    """The sha256 of a file: of a link to a sealed one (same size, mtime and inode) it is known."""
    return known.get(mark) or file_sha256(path)


def unshare(path: Path) -> None:
    copy = path.with_name(f"{path.name}.{os.getpid()}.copy")
    shutil.copyfile(path, copy)
    copy.replace(path)
