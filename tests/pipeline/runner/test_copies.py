"""Passing results of a run: in memory, copied now and then, and what a stopped run goes on from."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import StageFailed, UserError
from pipeline.key import digest
from pipeline.runner.copies import Copies
from pipeline.runner.held import Holdings
from pipeline.stage import Task
from pipeline.store import Store, StoreConfig
from pipeline.store.draft import StoredDraft
from tests.pipeline import sites as fake
from tests.pipeline.runner.chains import calls, graph_of, passed, runner_for, store_at, word
from tests.pipeline.sites import Blob
from tests.pipeline.store.conftest import leftovers

KEYS = [digest(number) for number in range(6)]


@pytest.fixture(autouse=True)
def no_calls() -> None:
    fake.CALLS.clear()


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nodes of whose passing result a file was written into a draft of the store."""
    seen: list[str] = []
    real = StoredDraft.put

    def put(self: StoredDraft, name: str, content: object) -> None:
        if type(self) is StoredDraft and name == "0.bin":
            seen.append(self.record["node"])
        real(self, name, content)  # type: ignore[arg-type]

    monkeypatch.setattr(StoredDraft, "put", put)
    return seen


def test_nothing_that_passes_reaches_the_store(tmp_path: Path, commits: list[str]) -> None:
    store = store_at(tmp_path / "store")
    assert word(store) == "abcd"
    assert commits == [] and passed(store) == []
    assert leftovers(store) == []


def test_beyond_the_budget_it_passes_by_the_disk_and_reaches_the_store_no_more(
    tmp_path: Path, commits: list[str]
) -> None:
    store = store_at(tmp_path / "store")
    assert word(store, blobs=fake.Blobs(memory=700)) == "abcd"  # one file of two, or none
    assert commits == [] and leftovers(store) == []


def test_the_bound_is_in_no_key(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    keys = [graph_of(store, 4, fake.Blobs(memory=memory)).keys for memory in (None, 0, 700)]
    assert keys[0] == keys[1] == keys[2]


def test_all_are_stored_if_they_are_to_be_kept(tmp_path: Path, commits: list[str]) -> None:
    store = store_at(tmp_path / "store")
    assert word(store, keep=True) == "abcd"
    assert commits == passed_sorted(store) == ["hand[0]", "hand[1]", "hand[2]"]


def passed_sorted(store: Store) -> list[str]:
    return sorted(passed(store))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, workers: int) -> None:
    store = store_at(tmp_path / "store", every=2)
    assert word(store, 6, workers=workers) == "abcdef"
    assert passed(store) == [] and leftovers(store) == []


def test_every_second_is_copied_and_the_last_copy_goes_at_the_end(
    tmp_path: Path, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    store = store_at(tmp_path / "store", every=2)
    assert word(store, 6) == "abcdef"
    assert commits == ["hand[1]", "hand[3]"]  # nothing reads hand[5]
    assert passed(store) == []


def test_a_copy_is_also_due_by_time(
    tmp_path: Path, commits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    assert word(store_at(tmp_path / "store", seconds=0), 4) == "abcd"
    assert commits == ["hand[0]", "hand[1]", "hand[2]"]


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every solve take long enough for a copy beside it."""
    real = fake.Solve.run

    def run(self: fake.Solve, task: Task) -> None:
        time.sleep(0.15)
        real(self, task)

    monkeypatch.setattr(fake.Solve, "run", run)


@pytest.mark.parametrize(
    "error", [UserError("broken"), KeyboardInterrupt()], ids=["error", "ctrl-c"]
)
def test_a_run_that_stops_keeps_its_newest_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    store = store_at(tmp_path / "store")
    healthy = stop_at(monkeypatch, 3, error)
    with pytest.raises((StageFailed, KeyboardInterrupt)):
        word(store, 5)
    assert passed(store) == ["hand[2]"] and leftovers(store) == []
    monkeypatch.setattr(fake.Solve, "run", healthy)
    fake.CALLS.clear()
    assert word(store, 5) == "abcde"
    assert calls("solve") == ["solve[3]", "solve[4]"] and calls("hand") == ["hand[3]"]
    assert passed(store) == []


def test_too_much_to_copy_when_it_stops_is_made_again_from_the_last_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runner.copies.AT_STOP", 10)
    slow(monkeypatch)
    store = store_at(tmp_path / "store", every=2)
    healthy = stop_at(monkeypatch, 5, UserError("broken"))
    with pytest.raises(StageFailed):
        word(store, 7)
    assert passed(store) == ["hand[3]"]
    monkeypatch.setattr(fake.Solve, "run", healthy)
    fake.CALLS.clear()
    assert word(store, 7) == "abcdefg"
    assert calls("solve") == ["solve[5]", "solve[6]"] and calls("hand") == ["hand[4]", "hand[5]"]


def stop_at(monkeypatch: pytest.MonkeyPatch, index: int, error: BaseException) -> object:
    """Make solve[index] raise; returns what `run` was."""
    healthy = fake.Solve.run

    def run(self: fake.Solve, task: Task) -> None:
        if task.index == index:
            raise error
        healthy(self, task)

    monkeypatch.setattr(fake.Solve, "run", run)
    return healthy


def test_without_any_copy_only_what_hands_on_is_repeated(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    assert word(store, 5) == "abcde"
    graph = graph_of(store, 5)
    for node in ("solve[4]", "word"):
        [key] = (graph.keys[ref] for ref in graph.keys if ref.node == node)
        store.drop(key)
    fake.CALLS.clear()
    assert word(store, 5) == "abcde"
    assert calls("solve") == ["solve[4]"]
    assert calls("hand") == [f"hand[{k}]" for k in range(4)]


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Copies]:
    """Of every second result; the holdings have one for each of KEYS."""
    store = Store(StoreConfig(dir=str(tmp_path / "store")))
    with store.live(KEYS) as live, store.scratch() as scratch:
        holdings = Holdings(scratch)
        made = Copies(store, holdings, live, every=2, seconds=1e6, settle=lambda: None)
        for key in KEYS:
            with holdings.drafts({"out": (key, {"node": key[:4]})}, None) as drafts:
                drafts["out"].put("a", Blob(b"abc"))
                drafts["out"].put("b", Blob(b"abc"))
        yield made
        made.close()


def make(copies: Copies, *numbers: int) -> None:
    """Note these results of one chain; a copy that was begun is done afterwards."""
    for number in numbers:
        copies.made("chain", KEYS[number])
    if copies._writing is not None:
        copies._writing.result(20)


def test_a_copy_goes_once_a_newer_one_is_there_and_nobody_reads_it(copies: Copies) -> None:
    store = copies._store
    make(copies, 0, 1)
    copies.released("chain", KEYS[1])
    assert [entry.key for entry in store.entries()] == [KEYS[1]]
    make(copies, 2, 3)
    assert [entry.key for entry in store.entries()] == [KEYS[3]]
    copies.released("chain", KEYS[3])
    copies.finish()
    assert list(store.entries()) == []


def test_a_copy_that_is_still_read_stays_beside_a_newer_one(copies: Copies) -> None:
    store = copies._store
    make(copies, 0, 1)
    make(copies, 2, 3)
    assert {entry.key for entry in store.entries()} == {KEYS[1], KEYS[3]}
    copies.released("chain", KEYS[1])
    assert [entry.key for entry in store.entries()] == [KEYS[3]]


def test_while_one_is_written_no_other_is_begun_and_the_end_does_not_wait_for_it(
    copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = Blob.write

    def write(self: Blob, path: Path) -> None:
        begun.set()
        go_on.wait(20)
        real(self, path)

    monkeypatch.setattr(Blob, "write", write)
    copies.made("chain", KEYS[0])
    copies.made("chain", KEYS[1])
    assert begun.wait(20)
    for number in (2, 3):
        copies.made("chain", KEYS[number])
    copies.released("chain", KEYS[1])
    copies._stopped.set()
    go_on.set()
    copies.finish()
    assert list(copies._store.entries()) == []  # given up between its two files
    assert copies._holdings.get(KEYS[1]) is None


def test_what_another_run_wants_is_stored_for_it(copies: Copies) -> None:
    store = copies._store
    copies.hand_over(lambda key: "chain")
    assert list(store.entries()) == []
    with store.live([KEYS[2], digest("not held")]) as other:
        assert other.held_elsewhere(frozenset(KEYS)) == frozenset(KEYS)
        copies.hand_over(lambda key: "chain")
        assert [entry.key for entry in store.entries()] == [KEYS[2]]
        copies.hand_over(lambda key: "chain")
        assert other.held_elsewhere(frozenset(KEYS)) == frozenset(KEYS) - {KEYS[2]}
        copies.released("chain", KEYS[2])
        copies.finish()
        assert store.has(KEYS[2])  # it is the other's as well
    copies.finish()
    assert not store.has(KEYS[2])


def test_no_room_for_a_copy_is_no_end_of_the_run(
    copies: Copies, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Blob, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Blob, "write", full)
    make(copies, 0, 1)
    copies.finish()
    assert "no durable copy" in caplog.text
    copies.save()
    assert "no copy of" in caplog.text


def test_a_runner_may_be_used_again(tmp_path: Path) -> None:
    store = store_at(tmp_path / "store")
    runner = runner_for(store)
    for count in (2, 4):
        runner.run(graph_of(store, count))
    assert sorted(set(calls("solve"))) == calls("solve")[:4]
