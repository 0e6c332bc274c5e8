"""Hard links to sealed files: their bytes are known, and anything else is read."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.store import Store, StoreConfig
from pipeline.store import draft as drafting

FIRST, SECOND = "a" * 64, "b" * 64


def build(store: Store, key: str, name: str, make: object) -> Path:
    with store.drafts({"out": (key, {"node": "test"})}) as drafts:
        make(drafts["out"].path / name)  # type: ignore[operator]
    found = store.get(key)
    assert found is not None
    return found.path / name


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that commits read to hash."""
    names: list[str] = []
    honest = drafting.file_sha256

    def counting(path: Path) -> str:
        names.append(path.name)
        return honest(path)

    monkeypatch.setattr(drafting, "file_sha256", counting)
    return names


def test_a_link_to_a_sealed_file_is_not_read_again(tmp_path: Path, hashed: list[str]) -> None:
    store = Store(StoreConfig(dir=str(tmp_path)))
    first = build(store, FIRST, "one", lambda path: path.write_bytes(b"content"))
    second = build(store, SECOND, "two", lambda path: os.link(first, path))
    assert hashed == ["one"]
    record = store.get(SECOND)
    assert record is not None
    assert record.manifest.files["two"].sha256 == hashlib.sha256(b"content").hexdigest()
    assert second.stat().st_ino == first.stat().st_ino
    assert store.verify() == []


def test_a_later_process_knows_it_from_the_manifest(tmp_path: Path, hashed: list[str]) -> None:
    first = build(
        Store(StoreConfig(dir=str(tmp_path))), FIRST, "one", lambda path: path.write_bytes(b"x")
    )
    later = Store(StoreConfig(dir=str(tmp_path)))
    assert later.get(FIRST) is not None
    build(later, SECOND, "two", lambda path: os.link(first, path))
    assert hashed == ["one"]


def test_a_file_of_the_same_size_is_read(tmp_path: Path, hashed: list[str]) -> None:
    store = Store(StoreConfig(dir=str(tmp_path)))
    build(store, FIRST, "one", lambda path: path.write_bytes(b"content"))
    build(store, SECOND, "two", lambda path: path.write_bytes(b"another"))
    assert hashed == ["one", "two"]
    assert store.verify() == []
