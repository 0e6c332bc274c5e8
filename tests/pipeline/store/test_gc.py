"""Garbage collection frees what its rules say, and never what a run holds."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import pytest

from pipeline.key import digest
from pipeline.store import Store, StoreConfig, collect
from tests.pipeline.store.conftest import Build, leftovers

FORK = multiprocessing.get_context("fork")
DAY = 86400


def used(store: Store, name: str, days_ago: float) -> None:
    then = time.time() - days_ago * DAY
    os.utime(store.layout.seal(digest(name)), (then, then))


def nodes(store: Store) -> set[str]:
    return {entry.node for entry in store.entries()}


@pytest.fixture
def aged(store: Store, build: Build) -> Store:
    """Four artifacts of 1000 bytes each: `a` used four days ago ... `d` today."""
    for days, name in enumerate("dcba"):
        build(name, data=name.encode() * 1000)
        used(store, name, days + 0.5)
    return store


def test_a_dry_run_says_what_a_real_one_then_does(aged: Store) -> None:
    dry = collect(aged, max_age_days=2)
    assert dry.dry_run and {entry.node for entry in dry.entries} == {"a", "b"}
    assert nodes(aged) == set("abcd")
    real = collect(aged, max_age_days=2, dry_run=False)
    assert (real.freed, real.kept, real.entries) == (dry.freed, dry.kept, dry.entries)
    assert nodes(aged) == set("cd")
    assert leftovers(aged) == [] and aged.verify() == []


def test_use_makes_an_artifact_young(aged: Store) -> None:
    aged.touch(digest("a"))
    with aged.live([digest("b")]):
        pass
    assert {entry.node for entry in collect(aged, max_age_days=2).entries} == set()


def test_size_frees_the_least_recently_used_first(aged: Store) -> None:
    total = collect(aged).kept
    report = collect(aged, max_bytes=total - 1000, dry_run=False)
    assert [entry.node for entry in report.entries] == ["a"]
    assert report.kept <= total - 1000 and report.kept + report.freed == total
    assert [e.node for e in collect(aged, max_bytes=0, dry_run=False).entries] == ["b", "c", "d"]
    assert collect(aged).kept == 0


def test_the_size_of_the_config_is_the_default(aged: Store) -> None:
    bounded = Store(StoreConfig(dir=str(aged.root), max_bytes=0))
    assert len(collect(bounded).entries) == 4
    assert collect(aged).entries == ()


def test_what_no_run_refers_to_goes(aged: Store) -> None:
    collect(aged, referenced={digest("a"), digest("c")}, dry_run=False)
    assert nodes(aged) == set("ac")


def test_what_this_process_holds_stays(aged: Store) -> None:
    with aged.live([digest("a")]) as lease:
        lease.extend([digest("b")])
        collect(aged, max_bytes=0, dry_run=False)
        assert nodes(aged) == set("ab")
    collect(aged, max_bytes=0, dry_run=False)
    assert nodes(aged) == set()


def hold(root: str, lock: str, keys: list[str], ready: Connection) -> None:
    with Store(StoreConfig(dir=root, lock=lock)).live(keys):
        ready.send("held")
        time.sleep(60)


@contextmanager
def another_run(store: Store, keys: Iterable[str]) -> Iterator[None]:
    """A process that holds `keys` and is killed at the end of the block."""
    here, there = FORK.Pipe()
    args = (str(store.root), store.config.lock, list(keys), there)
    child = FORK.Process(target=hold, args=args)
    child.start()
    assert here.poll(20)
    try:
        yield
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("lock", ["flock", "soft", "none"])
def test_what_another_process_holds_stays_until_it_dies(aged: Store, lock: str) -> None:
    store = Store(StoreConfig(dir=str(aged.root), lock=lock))
    with another_run(store, [digest("a")]):
        assert {e.node for e in collect(store, max_bytes=0).entries} == set("bcd")
        collect(store, max_bytes=0, dry_run=False)
        assert nodes(store) == {"a"}
    collect(store, max_bytes=0, dry_run=False)
    assert nodes(store) == set()
    assert leftovers(store) == []


def test_a_run_drops_only_what_no_other_run_holds(aged: Store) -> None:
    with aged.live([digest("a"), digest("b")]) as lease, another_run(aged, [digest("a")]):
        assert aged.drop(digest("a"), own=lease) == 0
        assert aged.drop(digest("b"), own=lease) > 1000
    assert nodes(aged) == set("acd")


def test_drop_frees_an_artifact_and_may_be_repeated(aged: Store) -> None:
    assert aged.drop(digest("a")) > 1000
    assert aged.drop(digest("a")) == 0
    assert nodes(aged) == set("bcd") and leftovers(aged) == []


def test_a_file_of_two_artifacts_is_counted_once_and_freed_with_the_last(
    store: Store, build: Build
) -> None:
    shard = build("layer", data=bytes(1 << 20)).file("data")
    for name in ("checkpoint", "again"):
        with store.drafts({"out": (digest(name), {"node": name})}) as drafts:
            os.link(shard, drafts["out"].path / "shard")
    assert 1 << 20 < collect(store).kept < (1 << 20) + 5000
    dry = collect(store, max_bytes=0)
    before = dry.freed
    assert 1 << 20 < before < (1 << 20) + 5000
    assert store.drop(digest("layer")) < 5000
    assert collect(store, max_bytes=0, dry_run=False).freed > 1 << 20


def test_leftovers_go_by_age(store: Store) -> None:
    old = [store.layout.tmp / "note.x", store.layout.locks / "x.flock", store.layout.tmp / "other"]
    young = [store.layout.tmp / "note.y", store.layout.locks / "y.flock"]
    for path in [*old, *young]:
        path.write_text("")
    for path in old:
        os.utime(path, (0, 0))
    collect(store, dry_run=False)
    assert [path.exists() for path in old] == [False, False, False]
    assert [path.exists() for path in young] == [True, True]
