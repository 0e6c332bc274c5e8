"""The step from drafts to artifacts.

A draft's folder gets its manifest last and is on the disk before it is renamed to its place; the
rename is what makes it exist. So a reader finds a whole artifact or none, whenever the writer
died, and of two writers of one key the first wins.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping
from concurrent.futures import Executor

from pipeline.errors import StageFailed
from pipeline.store.artifact import StoredArtifact
from pipeline.store.disk import sync
from pipeline.store.draft import StoredDraft, seal_draft
from pipeline.store.layout import Layout
from pipeline.store.manifest import read
from pipeline.store.reading import Warn, fetch
from pipeline.store.seals import Digests, Stamp, write_seal

ATTEMPTS = 5
OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST)


def commit(
    layout: Layout,
    drafts: Collection[StoredDraft],
    warn: Warn,
    known: Digests,
    pool: Executor,
) -> None:
    """Make every draft an artifact. Nothing is renamed before all are on the disk.

    `known` has digests of sealed files, and takes those of the new ones.
    """
    stamps = [seal_draft(draft, pool, known) for draft in drafts]
    for draft, marks in zip(drafts, stamps, strict=True):
        place(layout, draft, marks, warn)


def place(layout: Layout, draft: StoredDraft, marks: Mapping[str, Stamp], warn: Warn) -> None:
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
            # Whoever came first wins, if what lies there is whole; fetch clears it away if not.
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
