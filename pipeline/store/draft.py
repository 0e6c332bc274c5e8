"""Drafts of artifacts, and their atomic commit.

A draft's folder gets its manifest last and is synced to the disk before it is renamed into place;
the rename is what makes the artifact exist. So a reader finds a complete artifact or none, whenever
the writer died, and of two writers of one key the first wins.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.content import Content
from pipeline.errors import StageFailed
from pipeline.key import Json
from pipeline.sha256 import file_sha256
from pipeline.store.artifact import FileRecord, StoredArtifact, inside, read, render
from pipeline.store.disk import folders, sync, walk
from pipeline.store.integrity import Digests, Stamp, Warn, fetch, stamp, write_seal
from pipeline.store.layout import MANIFEST, Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredDraft:
    """An artifact being built: files go under `path`, plain JSON about the result into `meta`.

    `record` goes into the manifest beside `meta`: it starts as the identity that the draft was
    opened with, and the runner adds what is known at the end (seconds, peak_rss_bytes, warnings).
    """

    key: str
    output: str
    path: Path
    meta: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Callable[[Mapping[str, str]], str]] = field(default_factory=dict)
    """Files that are written once all others are hashed, by name: see `write_last`."""

    def write_json(self, name: str, value: Json) -> None:
        """Write one JSON file. Raises StageFailed for values that JSON lacks, such as NaN."""
        target = self.place(name)
        try:
            text = json.dumps(value, indent=1, allow_nan=False)
        except (ValueError, TypeError) as error:
            raise StageFailed(
                f"{name} of {self.label} cannot be written as JSON: {error}"
            ) from error
        target.write_text(text + "\n", encoding="utf-8")

    def put(self, name: str, content: Content) -> None:
        """Write one file from its content in memory."""
        content.write(self.place(name))

    def write_last(self, name: str, text_of: Callable[[Mapping[str, str]], str]) -> None:
        """Have a text file written from the sha256 (hex) of all other files, by their names.

        They are hashed for the manifest anyway, so that nothing is read for it a second time.
        Raises ValueError for a name such as "../x".
        """
        if not inside(name):
            raise ValueError(f"{name!r} is not a name for a file of a result")
        self.last[name] = text_of

    def place(self, name: str) -> Path:
        """The path of a file to be written; its folder is there. Raises ValueError for "../x"."""
        if not inside(name):
            raise ValueError(f"{name!r} is not a name for a file of a result")
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    @property
    def label(self) -> str:
        return f"{self.record.get('node', self.key[:12])}.{self.output}"


def seal_draft(draft: StoredDraft, pool: Executor, known: Digests) -> dict[str, Stamp]:
    """Finish a draft's folder: read-only files, all synced, the manifest written last.

    `known` has digests of files that are sealed already: a hard link to one is not hashed again.
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
    others = {name: record.sha256 for name, (record, _) in sealed.items()}
    for name, text_of in draft.last.items():
        sealed[name] = seal_text(draft.place(name), text_of(others))
    known.update((mark, record.sha256) for record, mark in sealed.values())
    try:
        body = {**draft.record, "key": draft.key, "output": draft.output, "meta": draft.meta}
        text = render(body, {name: sealed[name][0] for name in sorted(sealed)})
    except (ValueError, TypeError) as error:
        raise StageFailed(f"what {draft.label} says about itself is not JSON: {error}") from error
    manifest = draft.path / MANIFEST
    manifest.write_text(text, encoding="utf-8")
    manifest.chmod(0o444)
    list(pool.map(sync, [manifest, *folders(draft.path)]))
    return {name: mark for name, (_, mark) in sealed.items()}


def seal_text(path: Path, text: str) -> tuple[FileRecord, Stamp]:
    """Write a small file as `seal_draft` leaves the others: read-only, synced, hashed."""
    content = text.encode()
    path.write_bytes(content)
    mark = freeze(path)
    sync(path)
    return FileRecord(size=mark[0], sha256=hashlib.sha256(content).hexdigest()), mark


def files_of(draft: StoredDraft) -> Iterable[str]:
    for name, entry in walk(draft.path):
        if not entry.is_file(follow_symlinks=False):
            # The target of a link may change or vanish, and a result is immutable.
            raise StageFailed(f"{name} of {draft.label} is a link, not a plain file")
        if name == MANIFEST:
            raise StageFailed(f"{draft.label} has a file {MANIFEST}; that name is the store's")
        yield name


def freeze(path: Path) -> Stamp:
    """Make a file read-only, and a copy if it is a writable file's second name; its stamp."""
    status = path.stat()
    if status.st_nlink > 1 and status.st_mode & 0o222:
        # A writable file with a second name belongs to somebody else: keep a copy, leave theirs.
        unshare(path)
    path.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    return stamp(path.stat())


def digest_of(path: Path, mark: Stamp, known: Digests) -> str:
    """The sha256 of a file, looked up if it is a link to a sealed one (size, mtime, inode)."""
    return known.get(mark) or file_sha256(path)


def unshare(path: Path) -> None:
    copy = path.with_name(f"{path.name}.{os.getpid()}.copy")
    shutil.copyfile(path, copy)
    copy.replace(path)


ATTEMPTS = 5
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


def commit(
    layout: Layout,
    drafts: Collection[StoredDraft],
    warn: Warn,
    known: Digests,
    pool: Executor,
) -> None:
    """Turn every draft into an artifact. None is renamed before all are synced to the disk.

    `known` has digests of sealed files; those of the new ones are added.
    """
    stamps = [seal_draft(draft, pool, known) for draft in drafts]
    for draft, marks in zip(drafts, stamps, strict=True):
        settle(layout, draft, marks, warn)


def settle(layout: Layout, draft: StoredDraft, marks: Mapping[str, Stamp], warn: Warn) -> None:
    target = layout.entry(draft.key)
    if not target.parent.is_dir():
        target.parent.mkdir(exist_ok=True)
        sync(layout.root)
    for _ in range(ATTEMPTS):
        try:
            draft.path.rename(target)
        except OSError as error:
            if error.errno not in OCCUPIED:
                raise
            # The first writer wins if its artifact is intact; otherwise fetch moves it away.
            winner = fetch(layout, draft.key, rehash=False, warn=warn)
            if winner is not None:
                compare(draft, winner, warn)
                return
        else:
            sync(target.parent)
            write_seal(layout, draft.key, marks)
            return
    raise StageFailed(
        f"{target} cannot be replaced: it is damaged and comes back",
        remedy="look for another program that writes into the store",
    )


def compare(draft: StoredDraft, winner: StoredArtifact, warn: Warn) -> None:
    ours = read(draft.path, draft.key)
    differ = sorted(
        name
        for name in ours.files.keys() | winner.manifest.files.keys()
        if ours.files.get(name) != winner.manifest.files.get(name)
    )
    if differ:
        warn(
            f"{draft.label} was built twice with different bytes in {', '.join(differ)}; "
            f"the first is kept ({draft.key[:12]})"
        )
