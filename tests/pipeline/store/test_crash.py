"""Killed with SIGKILL at any instant, the store is whole and the same build goes on."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from pipeline.key import digest
from pipeline.store import Store, StoreConfig
from tests.pipeline.store.conftest import leftovers

FORK = multiprocessing.get_context("fork")
OUTPUTS = {"gram": digest("gram"), "absmax": digest("absmax")}


def build_both(store: Store, round_: int = 0) -> None:
    wanted = {name: (digest([key, round_]), {"node": name}) for name, key in OUTPUTS.items()}
    missing = {name: entry for name, entry in wanted.items() if not store.has(entry[0])}
    with store.live(key for key, _ in wanted.values()), store.drafts(missing) as drafts:
        for name, draft in drafts.items():
            draft.write_json("deep/name.json", name)
            (draft.path / "data").write_bytes(name.encode() * 5000)


def die_at(root: str, event: int) -> None:
    """Build, and die when this many things have been done to the file system."""
    store = Store(StoreConfig(dir=root))
    seen = count(1)

    def watch(name: str, _: tuple[object, ...]) -> None:
        if name.startswith(("open", "os.", "shutil.", "tempfile.")) and next(seen) == event:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    build_both(store)
    os._exit(0)


def build_for_ever(root: str, begun: Connection) -> None:
    store = Store(StoreConfig(dir=root))
    for round_ in count():
        build_both(store, round_)
        begun.send(round_)


def run(target: object, *args: object) -> multiprocessing.process.BaseProcess:
    assert callable(target)
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def check_whole(store: Store, warnings: list[str]) -> None:
    for key in store.layout.keys():
        assert store.check(key)
    assert warnings == []
    assert list(store.layout.quarantine.iterdir()) == []


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: these tests wait for the disk hundreds of times."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_killed_at_every_step_of_a_build_it_is_whole_and_goes_on(quick: Path) -> None:
    deaths = half_done = 0
    for event in count(1):
        warnings: list[str] = []
        store = Store(StoreConfig(dir=str(quick / str(event))), warn=warnings.append)
        child = run(die_at, str(store.root), event)
        child.join(20)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
        deaths += 1
        check_whole(store, warnings)
        half_done += len(list(store.entries())) == 1
        build_both(store)
        check_whole(store, warnings)
        assert {entry.node for entry in store.entries()} == OUTPUTS.keys()
        assert leftovers(store) == []
    assert deaths > 30
    # The two outputs are renamed one after the other: some death came between.
    assert half_done > 0


def test_killed_at_random_instants_it_is_whole_and_tmp_is_swept(quick: Path) -> None:
    chance = random.Random(7)
    warnings: list[str] = []
    store = Store(StoreConfig(dir=str(quick / "store")), warn=warnings.append)
    for _ in range(12):
        here, there = FORK.Pipe()
        child = run(build_for_ever, str(store.root), there)
        assert here.poll(20)
        time.sleep(chance.uniform(0, 0.04))
        child.kill()
        child.join(20)
        check_whole(store, warnings)
    assert len(list(store.entries())) >= len(OUTPUTS)
    with store.live([]):
        pass
    assert leftovers(store) == []


def test_a_living_process_keeps_its_temporary_folder(store: Store) -> None:
    with store.scratch() as folder:
        with store.live([]):
            assert folder.is_dir()
        child = run(sweep, str(store.root))
        child.join(20)
        assert child.exitcode == 0 and folder.is_dir()


def sweep(root: str) -> None:
    with Store(StoreConfig(dir=root)).live([]):
        pass
    os._exit(0)
