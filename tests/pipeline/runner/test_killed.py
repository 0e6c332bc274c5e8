"""A run killed at any instant goes on from its last copy, and solves nothing a second time."""

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
from pathlib import Path

import pytest

from pipeline.stage import Task
from pipeline.store import Store, StoreConfig
from tests.pipeline import sites as fake
from tests.pipeline.runner.chains import calls, graph_of, passed, store_at, word
from tests.pipeline.store.conftest import leftovers

FORK = multiprocessing.get_context("fork")
MEMBERS = 5


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def run_and_die(root: str, event: int, every: int, memory: int | None) -> None:
    """Run the chain, and die when so many things have been done to the file system."""
    seen = count(1)

    def watch(name: str, _: tuple[object, ...]) -> None:
        if name.startswith(("open", "os.", "shutil.", "tempfile.")) and next(seen) == event:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    word(store_at(Path(root), every=every), MEMBERS, fake.Blobs(memory=memory))
    os._exit(0)


def solved(store: Store) -> set[str]:
    return {entry.node for entry in store.entries() if entry.node.startswith("solve")}


@pytest.mark.parametrize("memory", [None, 700], ids=["memory", "disk"])
@pytest.mark.parametrize("every", [1, 2])
def test_killed_again_and_again_no_member_is_solved_twice(
    quick: Path, every: int, memory: int | None
) -> None:
    chance = random.Random(every)
    deaths = resumed = 0
    for round_ in range(4):
        warnings: list[str] = []
        store = Store(StoreConfig(dir=str(quick / f"{round_}")), warn=warnings.append)
        while True:
            before = solved(store)
            died = FORK.Process(
                target=run_and_die,
                args=(str(store.root), chance.randint(60, 900), every, memory),
            )
            died.start()
            died.join(60)
            assert before <= solved(store)
            for key in store.layout.keys():
                assert store.check(key)
            if died.exitcode == 0:
                break
            assert died.exitcode == -signal.SIGKILL
            deaths += 1
            resumed += bool(passed(store))
        fake.CALLS.clear()
        assert word(store_at(store.root), MEMBERS, fake.Blobs(memory=memory)) == "abcde"
        assert fake.CALLS == [] and warnings == []
        assert leftovers(store) == []
    assert deaths > 4 and resumed > 0


@pytest.mark.parametrize("stored", range(1, MEMBERS))
def test_what_is_solved_is_not_solved_again_and_only_forwards_are_repeated(
    tmp_path: Path, stored: int
) -> None:
    fake.CALLS.clear()
    child = FORK.Process(target=killed_in, args=(str(tmp_path), stored))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    store = store_at(tmp_path)
    assert solved(store) == {f"solve[{k}]" for k in range(stored)}
    assert passed(store) == []
    assert word(store, MEMBERS) == "abcde"
    assert calls("solve") == [f"solve[{k}]" for k in range(stored, MEMBERS)]
    assert calls("hand") == [f"hand[{k}]" for k in range(MEMBERS - 1)]


def killed_in(root: str, index: int) -> None:
    """Run the chain without copies until solve[index] is at work."""
    real = fake.Solve.run

    def run(self: fake.Solve, task: Task) -> None:
        if task.index == index:
            os.kill(os.getpid(), signal.SIGKILL)
        real(self, task)

    fake.Solve.run = run  # type: ignore[method-assign]
    word(store_at(Path(root)), MEMBERS)


@pytest.mark.parametrize("lock", ["flock", pytest.param("soft", marks=pytest.mark.slow)])
def test_two_runs_on_one_store_build_nothing_twice(tmp_path: Path, lock: str) -> None:
    """The second starts when the first has results in memory that it needs."""
    begun, done = FORK.Event(), FORK.Queue()
    runs = [FORK.Process(target=run_slowly, args=(str(tmp_path), lock, begun, done)) for _ in "ab"]
    runs[0].start()
    assert begun.wait(60)
    runs[1].start()
    found = [done.get(timeout=60) for _ in runs]
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    assert [made[0] for made in found] == ["abcde"] * 2
    built = sorted(name for _, names in found for name in names)
    assert len(set(built)) == len(built), built
    store = store_at(tmp_path, lock=lock)
    assert passed(store) == [] and leftovers(store) == []


def run_slowly(root: str, lock: str, begun: object, done: object) -> None:
    real = fake.Solve.run

    def run(self: fake.Solve, task: Task) -> None:
        if task.index == 2:
            begun.set()  # type: ignore[attr-defined]
        time.sleep(0.5)
        real(self, task)

    fake.Solve.run = run  # type: ignore[method-assign]
    fake.CALLS.clear()
    found = word(store_at(Path(root), lock=lock), MEMBERS)
    done.put((found, list(fake.CALLS)))  # type: ignore[attr-defined]


def test_the_graph_of_the_chain_has_a_last_hand_that_nobody_reads(tmp_path: Path) -> None:
    graph = graph_of(store_at(tmp_path), MEMBERS)
    assert f"hand[{MEMBERS - 1}]" in graph.nodes
