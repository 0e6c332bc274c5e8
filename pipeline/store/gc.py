"""Garbage collection: by age, by size, by what no run refers to; never what a live run holds."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pipeline.store.disk import remove
from pipeline.store.entries import Entry, Ledger
from pipeline.store.evict import DAY, bury_unheld, sweep_rest, sweep_tmp
from pipeline.store.leases import leases, registry
from pipeline.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was freed, or with `dry_run` would be.

    `freed` and `kept` are bytes on the disk (hard-linked files counted once, files with names
    outside the store not counted as freed), `entries` the artifacts that went.
    """

    freed: int
    kept: int
    entries: tuple[Entry, ...]
    dry_run: bool


def collect(
    store: Store,
    *,
    max_age_days: float | None = None,
    max_bytes: int | None = None,
    referenced: Collection[str] | None = None,
    dry_run: bool = True,
) -> Report:
    """Free artifacts not used for `max_age_days`, those whose key is not in `referenced`, and
    then the least recently used ones until all together take at most `max_bytes`.

    None switches a rule off; `max_bytes` falls back to `store.max_bytes` of the config. Leftovers
    of dead processes go too.
    """
    layout, kind = store.layout, store.config.lock
    limit = store.config.max_bytes if max_bytes is None else max_bytes
    oldest = None if max_age_days is None else time.time() - max_age_days * DAY
    held = in_use(store)
    by_use = sorted(store.entries(), key=lambda entry: (entry.used, entry.key))
    ledger = Ledger()
    for entry in by_use:
        ledger.add(layout.entry(entry.key))
    freed, gone = 0, []
    loose = [entry for entry in by_use if entry.key not in held]
    for entry in condemned(loose, ledger, oldest, referenced, limit):
        # A run may have begun to hold it since the list was made.
        remains = layout.entry(entry.key) if dry_run else bury_unheld(layout, kind, entry.key)
        if remains is None:
            continue
        freed += ledger.release(remains)
        gone.append(entry)
        if not dry_run:
            remove(remains)
    sweep_tmp(layout, kind, dry_run=dry_run)
    if not dry_run:
        sweep_rest(layout)
    return Report(freed=freed, kept=ledger.total, entries=tuple(gone), dry_run=dry_run)


def condemned(
    by_use: Iterable[Entry],
    ledger: Ledger,
    oldest: float | None,
    referenced: Collection[str] | None,
    limit: int | None,
) -> Iterator[Entry]:
    """Entries to free, in order; `ledger` is read as it goes down with each one freed."""
    rest = []
    for entry in by_use:
        expired = oldest is not None and entry.used < oldest
        forgotten = referenced is not None and entry.key not in referenced
        if expired or forgotten:
            yield entry
        else:
            rest.append(entry)
    for entry in rest:
        if limit is None or ledger.total <= limit:
            return
        yield entry


def in_use(store: Store) -> frozenset[str]:
    with registry(store.layout, store.config.lock):
        held = leases(store.layout)
    return frozenset[str]().union(*held.values())
