"""A disk that is full or may not be written: one clear error, and the store stays whole."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.errors import StageFailed, UserError
from pipeline.key import digest
from pipeline.store import Store, StoreConfig
from tests.pipeline.store.conftest import leftovers, put

KEY = digest("big")
MOUNT = ("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run([*MOUNT, folder], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs takes root and a kernel that allows it")
    yield folder
    subprocess.run(["umount", folder], check=True)


def write_plainly(folder: Path) -> None:
    (folder / "data").write_bytes(bytes(4 << 20))


def write_tensors(folder: Path) -> None:
    save_file({"x": np.zeros(4 << 20, dtype=np.uint8)}, folder / "data")


def write_and_wrap(folder: Path) -> None:
    try:
        write_plainly(folder)
    except OSError as error:
        raise StageFailed("the stage failed") from error


@pytest.mark.parametrize("write", [write_plainly, write_tensors, write_and_wrap])
def test_a_full_disk_is_one_error_and_what_was_there_stays(
    small: Path, write: Callable[[Path], None]
) -> None:
    store = Store(StoreConfig(dir=str(small / "store")))
    put(store, "kept")
    with pytest.raises(UserError) as caught, store.drafts({"out": (KEY, {})}) as drafts:
        write(drafts["out"].path)
    assert f"no space left on the disk of the store {store.root}" in caught.value.what
    assert "free" in caught.value.what and "mode=gc" in caught.value.remedy
    assert leftovers(store) == []
    assert store.verify() == [] and store.has(digest("kept")) and not store.has(KEY)
    put(store, "another")


def test_a_disk_that_fills_while_committing_leaves_the_store_whole(small: Path) -> None:
    store = Store(StoreConfig(dir=str(small / "store")))
    put(store, "kept")
    with pytest.raises(UserError, match="no space left"), store.drafts({"o": (KEY, {})}) as drafts:
        drafts["o"].meta["long"] = "x" * (2 << 20)
    assert leftovers(store) == [] and store.verify() == []
    (small / "ballast").write_bytes(bytes(store.free_bytes()))
    assert Store(StoreConfig(dir=str(store.root))).has(digest("kept"))


def test_a_read_only_file_system_is_said_at_once_and_later(small: Path) -> None:
    store = Store(StoreConfig(dir=str(small / "store")))
    put(store, "kept")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    with pytest.raises(UserError, match="cannot be created or written: Read-only"):
        Store(StoreConfig(dir=str(store.root))).check_writable()
    with pytest.raises(UserError, match="read-only file system"), store.drafts({"o": (KEY, {})}):
        pass
    assert store.has(digest("kept"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "no space left on the disk of the store"),
        (errno.EDQUOT, "over quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "the store .* cannot be written"),
    ],
)
def test_what_the_disk_says_reaches_the_user_once(store: Store, code: int, said: str) -> None:
    with pytest.raises(UserError, match=said), store.drafts({"out": (KEY, {})}) as drafts:
        raise OSError(code, os.strerror(code), str(drafts["out"].path / "data"))
    assert leftovers(store) == []


def test_a_file_elsewhere_that_may_not_be_read_is_not_blamed_on_the_store(store: Store) -> None:
    with pytest.raises(PermissionError), store.drafts({"out": (KEY, {})}):
        raise PermissionError(errno.EACCES, "denied", "/somewhere/model.safetensors")


def test_a_full_disk_elsewhere_names_that_place(store: Store) -> None:
    with pytest.raises(UserError, match="the folder /somewhere"), store.drafts({"out": (KEY, {})}):
        raise OSError(errno.ENOSPC, "full", "/somewhere/x")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_where_the_store_should_be_is_an_error(tmp_path: Path, below: str) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(UserError, match="cannot be created or written") as caught:
        Store(StoreConfig(dir=str(tmp_path / "store" / below)))
    assert "store.dir" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="Permission denied"):
        Store(StoreConfig(dir=str(tmp_path / "store")))
    tmp_path.chmod(0o700)


def test_a_full_disk_is_said_when_a_run_registers(small: Path) -> None:
    store = Store(StoreConfig(dir=str(small / "store")))
    with store.live([]) as lease:
        (small / "ballast").write_bytes(bytes(store.free_bytes()))
        with pytest.raises(UserError, match="no space left"):
            lease.extend(digest(number) for number in range(100))
    with (
        pytest.raises(UserError, match="no space left"),
        store.live(digest(number) for number in range(100)),
    ):
        pass
    assert leftovers(store) == []
