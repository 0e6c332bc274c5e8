from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.outside import FileChanged
from stages.weights import hashes
from stages.weights import hashes as beside
from stages.weights.hashes import find_pinned, memory_file, sha256_of, while_hashing


@pytest.fixture(autouse=True)
def nothing_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test has the time to let a file's change time grow old."""
    monkeypatch.setattr(hashes, "FINE", 0.0)


def aged(path: Path, text: str) -> Path:
    """A file that was written a while ago."""
    path.write_text(text)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    return path


def test_a_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = aged(tmp_path / "x", "hello")
    expected = hashlib.sha256(b"hello").hexdigest()
    assert sha256_of([file]) == {file: expected}
    monkeypatch.setattr(
        hashes, "open_sha256", lambda file: pytest.fail(f"{file.name} is read again")
    )
    assert sha256_of([file]) == {file: expected}


@pytest.mark.parametrize("write", [Path.write_text, aged])
def test_a_file_that_was_just_written_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], object]
) -> None:
    monkeypatch.setattr(hashes, "FINE", 60.0)
    file = tmp_path / "x"
    write(file, "one")
    sha256_of([file])
    assert not memory_file().exists()


def test_a_changed_file_is_hashed_again(tmp_path: Path) -> None:
    file = aged(tmp_path / "x", "one")
    before = sha256_of([file])[file]
    aged(file, "two more")
    assert sha256_of([file])[file] != before


def test_other_content_of_the_same_size_and_time_is_another_file(tmp_path: Path) -> None:
    """Written in place or put in its place, with the time that `cp -p` and archives keep."""
    file, digests = aged(tmp_path / "x", "one"), set[str]()
    digests.add(sha256_of([file])[file])
    aged(file, "two")
    digests.add(sha256_of([file])[file])
    aged(tmp_path / "y", "six").replace(file)
    digests.add(sha256_of([file])[file])
    assert len(digests) == 3


def test_all_files_are_read_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = aged(tmp_path / "x", "hello")
    monkeypatch.setattr(hashes, "_known", lambda state: (state.size, 0, 0, 0))
    before = sha256_of([file])
    aged(file, "other")
    assert sha256_of([file]) == before  # what a file system without times and inodes would do
    assert sha256_of([file], rehash=True) == {file: hashlib.sha256(b"other").hexdigest()}
    assert sha256_of([file], rehash=False) == sha256_of([file], rehash=True)


def test_a_file_that_changes_while_it_is_hashed_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = aged(tmp_path / "x", "hello")

    def disturbed(opened: object) -> str:
        aged(file, "other")
        return "0" * 64

    monkeypatch.setattr(hashes, "open_sha256", disturbed)
    with pytest.raises(FileChanged, match=f"{file} changed while it was in use"):
        sha256_of([file])
    assert not memory_file().exists()


def test_content_is_found_after_it_moved(tmp_path: Path) -> None:
    file = aged(tmp_path / "x", "hello")
    digest = sha256_of([file])[file]
    assert (found := find_pinned(digest, 5)) is not None and found.path == file
    file.rename(tmp_path / "y")
    assert find_pinned(digest, 5) is None
    sha256_of([tmp_path / "y"])
    assert (found := find_pinned(digest, 5)) is not None and found.path == tmp_path / "y"


@pytest.mark.parametrize("text", ["", "[]", '{"states": 3}', '{"states": {"x": 1}}'])
def test_a_broken_memory_costs_time_only(tmp_path: Path, text: str) -> None:
    memory_file().parent.mkdir(parents=True)
    memory_file().write_text(text)
    file = aged(tmp_path / "x", "hello")
    assert sha256_of([file])[file] == hashlib.sha256(b"hello").hexdigest()


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        sha256_of([tmp_path / "gone"])


def test_work_is_done_beside_much_that_is_hashed_and_not_where_all_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "LONG", 5)
    done: list[str] = []

    def work() -> None:
        time.sleep(0.05)
        done.append("work")

    with while_hashing(work):
        sha256_of([aged(tmp_path / "much", "hello")])
        assert done == ["work"]
        sha256_of([tmp_path / "much"])
        sha256_of([aged(tmp_path / "little", "hi")])
    sha256_of([aged(tmp_path / "later", "hello again")])
    assert done == ["work"]


def test_an_error_of_hashing_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"), while_hashing(lambda: None):
        sha256_of([tmp_path / "missing"])
