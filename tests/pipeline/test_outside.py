"""A file outside the store counts only in the state in which its content was identified."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.outside import FileChanged, PinnedFile, Readings, state_of

OLD, NEW = b"the old", b"the new"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def rewritten(file: Path, data: bytes = NEW) -> None:
    """Other bytes, with the size and the mtime of before."""
    status = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replaced(file: Path, data: bytes = NEW) -> None:
    other = file.with_name("other")
    other.write_bytes(data)
    status = file.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(file)


def cut(file: Path) -> None:
    os.truncate(file, 3)


def linked_elsewhere(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(NEW)
    file.unlink()
    file.symlink_to(other)


CHANGES = [rewritten, replaced, cut, linked_elsewhere]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_not_opened(file: Path, change: Callable[[Path], None]) -> None:
    pinned = PinnedFile(file, state_of(file), hashlib.sha256(OLD).hexdigest())
    change(file)
    with pytest.raises(FileChanged, match=f"{file} changed while it was in use") as caught:
        with pinned.open():
            pytest.fail("it is read")
    assert "run the same command again" in caught.value.remedy


@pytest.mark.parametrize("change", [rewritten, cut])
@pytest.mark.parametrize("fails", [False, True])
def test_what_was_read_while_it_changed_does_not_count(
    file: Path, change: Callable[[Path], None], fails: bool
) -> None:
    with pytest.raises(FileChanged), PinnedFile(file, state_of(file)).open() as opened:
        opened.read(2)
        change(file)
        if fails:
            raise UserError("it ends too early")


@pytest.mark.parametrize("restore", [rewritten, replaced])
def test_the_same_content_is_read_on_wherever_it_comes_from(
    file: Path, restore: Callable[[Path, bytes], None]
) -> None:
    pinned = PinnedFile(file, state_of(file), hashlib.sha256(OLD).hexdigest())
    restore(file, OLD)
    for _ in range(2):
        with pinned.open() as opened:
            assert opened.read() == OLD
    rewritten(file)
    with pytest.raises(FileChanged), pinned.open():
        pass


def test_without_a_digest_only_the_state_counts(file: Path) -> None:
    pinned = PinnedFile(file, state_of(file))
    os.link(file, file.with_name("other"))
    with pytest.raises(FileChanged, match="linked again"), pinned.open():
        pass


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fails", [False, True])
def test_what_a_node_reads_by_its_path_is_looked_at_again(
    file: Path, change: Callable[[Path], None], fails: bool
) -> None:
    outside = Readings()
    with outside.watched():
        outside.add([file])
    with pytest.raises(FileChanged), outside.watched():
        change(file)
        if fails:
            raise UserError("half a file cannot be read")


def test_a_file_that_is_gone_is_one_error(file: Path) -> None:
    outside = Readings()
    outside.add([file])
    file.unlink()
    with pytest.raises(UserError, match=f"{file} cannot be read"), outside.watched():
        pass
