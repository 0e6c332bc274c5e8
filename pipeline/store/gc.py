"""Garbage collection by age, size and references; artifacts that live runs hold are kept."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from pipeline.store.disk import remove
from pipeline.store.entries import Entry, Ledger
from pipeline.store.evict import DAY, detach_unleased, sweep_rest, sweep_tmp
from pipeline.store.leases import leases, registry
from pipeline.store.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The outcome of a collection: what was freed, or would be with `dry_run`.

    `freed` and `kept` are bytes on the disk (hard-linked files counted once, files with names
    outside the store not counted as freed), `entries` the artifacts removed.
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

    None disables a rule; `max_bytes` falls back to `store.max_bytes` of the config. Leftovers of
    dead processes are removed as well.
    """
    store.check_writable()  # leases are locks, also where nothing is freed
    layout, kind = store.layout, store.config.lock
    limit = store.config.max_bytes if max_bytes is None else max_bytes
    oldest = None if max_age_days is None else time.time() - max_age_days * DAY
    held = in_use(store)
    by_use = sorted(store.entries(), key=lambda entry: (entry.used, entry.key))
    ledger = Ledger()
    for entry in by_use:
        ledger.add(layout.entry(entry.key))
    freed, removed = 0, []
    free = [entry for entry in by_use if entry.key not in held]
    for entry in selected(free, ledger, oldest, referenced, limit):
        # A run may have leased it since the list was made.
        remains = layout.entry(entry.key) if dry_run else detach_unleased(layout, kind, entry.key)
        if remains is None:
            continue
        freed += ledger.release(remains)
        removed.append(entry)
        if not dry_run:
            remove(remains)
    sweep_tmp(layout, kind, dry_run=dry_run)
    if not dry_run:
        sweep_rest(layout)
    return Report(freed=freed, kept=ledger.total, entries=tuple(removed), dry_run=dry_run)


def selected(
    by_use: Iterable[Entry],
    ledger: Ledger,
    oldest: float | None,
    referenced: Collection[str] | None,
    limit: int | None,
) -> Iterator[Entry]:
    """Entries to free, in order; `ledger` goes down as the caller releases each of them."""
    rest = []
    for entry in by_use:
        expired = oldest is not None and entry.used < oldest
        unreferenced = referenced is not None and entry.key not in referenced
        if expired or unreferenced:
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
