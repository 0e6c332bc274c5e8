"""Errors of disks: the folder that is blamed is the one that is written to or that is gone."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from safetensors import safe_open

from pipeline.store.disk_errors import Place, StorageTrouble, explained, gone


def test_a_copy_that_finds_no_room_blames_where_it_goes(tmp_path: Path) -> None:
    source, target = tmp_path / "store" / "a", tmp_path / "run" / "a"
    place = Place(root=tmp_path / "run", what="the folder", remedy="choose another")
    with pytest.raises(StorageTrouble) as told, explained(place):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
    assert f"the folder {tmp_path / 'run'} " in str(told.value)
    assert "choose another" in str(told.value)


@pytest.mark.parametrize("whole", [True, False])
def test_a_tensor_file_that_left_with_the_store_is_told(tmp_path: Path, whole: bool) -> None:
    root = tmp_path / "store"
    if not whole:
        root.mkdir()
    with pytest.raises(FileNotFoundError) as missing:
        safe_open(root / "tokens.safetensors", framework="np")
    assert "was removed from the store" in str(gone(missing.value, root))
    (tmp_path / "other").mkdir()
    assert gone(missing.value, tmp_path / "other") is None
