"""What is held in memory: the budget, what goes to the disk, letting go, copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import StageFailed, UserError
from pipeline.key import digest
from pipeline.runner.held import Budget, HeldResult, Holdings
from pipeline.store import Store, StoreConfig
from tests.pipeline.sites import Blob

KEY = digest("one")
GPU = (("cuda:0", 400), ("cpu", 1 << 40))


def hold(holdings: Holdings, *blobs: Blob, limit: int | None = None, key: str = KEY) -> HeldResult:
    with holdings.drafts({"out": (key, {"node": "maker"})}, limit) as drafts:
        for number, blob in enumerate(blobs):
            drafts["out"].put(f"deep/{number}", blob)
        drafts["out"].meta["pair"] = (1, 2)
    result = holdings.get(key)
    assert result is not None
    return result


@pytest.fixture
def holdings(tmp_path: Path) -> Holdings:
    (tmp_path / "scratch").mkdir()
    return Holdings(tmp_path / "scratch")


def test_content_is_handed_back_as_it_was_put(holdings: Holdings) -> None:
    blob = Blob(b"abc")
    result = hold(holdings, blob)
    assert result.names == ("deep/0",)
    assert result.content("deep/0") == blob
    assert result.bytes == result.in_memory == 3
    assert result.meta == {"pair": [1, 2]}  # as the store would give it
    assert holdings.budget.used == {"cpu": 3}


def test_one_that_wants_a_file_gets_one(holdings: Holdings) -> None:
    result = hold(holdings, Blob(b"abc"))
    assert result.file("deep/0").read_bytes() == b"abc"
    assert result.file("deep/0") == result.path / "deep/0"
    assert result.names == ("deep/0",)
    with pytest.raises(UserError, match="no file 'else'; it has deep/0"):
        result.file("else")


def test_what_exceeds_the_bound_is_a_file(holdings: Holdings) -> None:
    result = hold(holdings, Blob(b"a" * 60), Blob(b"b" * 60), limit=100)
    assert result.in_memory == 60
    assert result.content("deep/1") is None
    assert result.file("deep/1").read_bytes() == b"b" * 60
    assert result.bytes == 120


def test_with_no_memory_all_are_files(holdings: Holdings) -> None:
    result = hold(holdings, Blob(b"a"), limit=0)
    assert result.in_memory == 0 and result.file("deep/0").read_bytes() == b"a"
    assert holdings.budget.peak == 0


def test_without_a_bound_a_quarter_of_each_memory_is_filled() -> None:
    budget = Budget()
    places = [budget.keep(Blob(b"x" * 60, GPU), None) for _ in range(3)]
    assert [kept.memories[0].name for kept in places if kept] == ["cuda:0", "cpu", "cpu"]
    assert budget.used == {"cuda:0": 60, "cpu": 120}
    small = (("cpu", 100),)
    assert Budget().keep(Blob(b"x" * 26, small), None) is None


def test_a_bound_is_for_each_memory() -> None:
    budget = Budget()
    assert [budget.keep(Blob(b"x" * 60, GPU), 100) is None for _ in range(3)] == [False] * 2 + [
        True
    ]
    assert budget.used == {"cuda:0": 60, "cpu": 60}


def test_without_a_bound_what_nodes_need_for_themselves_stays_free() -> None:
    budget = Budget(reserved={"cuda": 360})
    kept = [budget.keep(Blob(b"x" * 30, GPU), None) for _ in range(2)]
    assert [content.memories[0].name for content in kept if content] == ["cuda:0", "cpu"]
    budget.reserved = {"cuda": 1000}
    assert budget.keep(Blob(b"x", GPU[:1]), None) is None
    assert budget.keep(Blob(b"x", GPU), 100) is not None  # a bound that is said holds


def test_what_is_let_go_makes_room(holdings: Holdings) -> None:
    first = hold(holdings, Blob(b"a" * 80), limit=100)
    holdings.drop(KEY)
    assert holdings.get(KEY) is None and not first.path.exists()
    again = hold(holdings, Blob(b"b" * 80), limit=100, key=digest("two"))
    assert again.in_memory == 80
    assert holdings.budget.peak == 80


def test_a_stage_that_fails_leaves_nothing(holdings: Holdings, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        holdings.drafts({"out": (KEY, {})}, 10) as drafts,
    ):
        drafts["out"].put("a", Blob(b"abc"))
        drafts["out"].put("b", Blob(b"too long for it"))
        raise RuntimeError
    assert holdings.budget.used == {"cpu": 0}
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_meta_that_is_no_json_is_refused(holdings: Holdings) -> None:
    with (
        pytest.raises(StageFailed, match=r"maker\.out says about itself is not JSON"),
        holdings.drafts({"out": (KEY, {"node": "maker"})}, None) as drafts,
    ):
        drafts["out"].meta["bad"] = float("nan")
    assert holdings.get(KEY) is None


def test_a_name_that_leaves_the_folder_is_refused(holdings: Holdings) -> None:
    with (
        pytest.raises(ValueError, match="not a name"),
        holdings.drafts({"out": (KEY, {})}, None) as drafts,
    ):
        drafts["out"].put("../a", Blob(b"abc"))


def test_what_is_being_copied_goes_when_the_copy_is_done(holdings: Holdings) -> None:
    hold(holdings, Blob(b"abc"))
    with holdings.pinned(KEY) as held:
        assert held is not None
        holdings.drop(KEY)
        assert holdings.get(KEY) is None and holdings.keys() == frozenset()
        assert held.path.exists() and holdings.budget.used == {"cpu": 3}
    assert not held.path.exists() and holdings.budget.used == {"cpu": 0}


def test_made_again_while_it_is_copied_it_is_there_and_counted_once(holdings: Holdings) -> None:
    hold(holdings, Blob(b"abc"))
    with holdings.pinned(KEY):
        holdings.drop(KEY)
        hold(holdings, Blob(b"abc"))
    assert holdings.keys() == {KEY} and holdings.budget.used == {"cpu": 3}


def test_a_copy_has_the_files_of_a_draft(holdings: Holdings, tmp_path: Path) -> None:
    store = Store(StoreConfig(dir=str(tmp_path / "store")))
    result = hold(holdings, Blob(b"a" * 60), Blob(b"b" * 60), limit=100)
    with store.drafts({"out": (KEY, result.record)}) as drafts:
        assert result.copy_to(drafts["out"], lambda: False)
    stored = store.get(KEY)
    assert stored is not None and stored.names == result.names and stored.meta == result.meta
    assert [stored.file(name).read_bytes()[:1] for name in stored.names] == [b"a", b"b"]
    assert result.file("deep/1").stat().st_nlink == 2  # the spilled file is not written again
    holdings.drop(KEY)
    assert store.check(KEY)


def test_a_copy_can_be_given_up(holdings: Holdings, tmp_path: Path) -> None:
    store = Store(StoreConfig(dir=str(tmp_path / "store")))
    result = hold(holdings, Blob(b"a"))
    with store.drafts({}) as _, store.scratch():
        pass
    with pytest.raises(RuntimeError), store.drafts({"out": (KEY, {})}) as drafts:
        assert not result.copy_to(drafts["out"], lambda: True)
        raise RuntimeError
    assert store.get(KEY) is None
