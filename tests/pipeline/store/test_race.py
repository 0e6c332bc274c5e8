"""Processes that build the same key at the same time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from pipeline.key import digest
from pipeline.store import Store, StoreConfig

FORK = multiprocessing.get_context("fork")
KEY = digest("shared")


def build_at_once(root: str, lock: str, barrier: Barrier, log: str) -> None:
    store = Store(StoreConfig(dir=root, lock=lock), warn=lambda text: note(log, text))
    barrier.wait(20)
    with store.lock(KEY, lambda: note(log, "waited")):
        if store.get(KEY) is None:
            with store.drafts({"out": (KEY, {"node": "shared"})}) as drafts:
                (drafts["out"].path / "data").write_bytes(b"same" * 100000)
            note(log, "built")
    artifact = store.get(KEY, rehash=True)
    os._exit(0 if artifact is not None and artifact.bytes == 400000 else 1)


def note(log: str, text: str) -> None:
    with open(log, "a") as file:
        file.write(text + "\n")


@pytest.mark.parametrize("lock", ["flock", "soft", "none"])
def test_all_get_one_whole_result(tmp_path: Path, lock: str) -> None:
    log = tmp_path / "log"
    barrier = FORK.Barrier(3)
    root = str(tmp_path / "store")
    children = [
        FORK.Process(target=build_at_once, args=(root, lock, barrier, str(log))) for _ in range(3)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    said = log.read_text().split("\n")
    assert set(said) <= {"built", "waited", ""}
    if lock != "none":
        assert said.count("built") == 1
    store = Store(StoreConfig(dir=root))
    assert store.verify() == [] and len(list(store.entries())) == 1
    assert list(store.layout.tmp.iterdir()) == []


@pytest.mark.parametrize("lock", ["flock", "soft"])
def test_who_comes_second_is_told_and_goes_in_when_the_first_is_out(
    tmp_path: Path, lock: str
) -> None:
    store = Store(StoreConfig(dir=str(tmp_path / "store"), lock=lock))
    told = threading.Event()
    order: list[str] = []

    def second() -> None:
        with store.lock(KEY, told.set):
            order.append("second")

    thread = threading.Thread(target=second)
    with store.lock(KEY, lambda: pytest.fail("nobody holds it")):
        thread.start()
        assert told.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
