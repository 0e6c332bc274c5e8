"""The digest of a file is that of its bytes, whatever its size."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline import sha256


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 1000])
def test_the_digest_is_that_of_the_bytes(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sha256, "STEP", 64)
    data = bytes(index * 7 % 251 for index in range(size))
    (tmp_path / "file").write_bytes(data)
    assert sha256.file_sha256(tmp_path / "file") == hashlib.sha256(data).hexdigest()
