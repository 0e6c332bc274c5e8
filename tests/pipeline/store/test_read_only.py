"""A store that cannot be written is listed, verified and hit; nothing is built into it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.key import digest
from pipeline.store import Store, StoreConfig, collect, integrity
from tests.pipeline.store.conftest import Build
from tests.sealed import sealed

KEYS = [digest("a"), digest("b")]


@pytest.fixture
def sealed_store(store: Store, build: Build, warnings: list[str]) -> Iterator[Store]:
    build("a")
    build("b", data=b"spoiled")
    file = store.layout.entry(KEYS[1]) / "data"
    file.chmod(0o644)
    file.write_bytes(b"damaged")
    with sealed(store.root):
        yield Store(StoreConfig(dir=str(store.root)), warn=warnings.append)


def test_it_is_listed_verified_and_hit(sealed_store: Store, warnings: list[str]) -> None:
    assert not sealed_store.writable
    assert {entry.node for entry in sealed_store.entries()} == {"a", "b"}
    with sealed_store.live(KEYS) as lease:
        lease.extend([digest("c")])
        assert sealed_store.has(KEYS[0]) and sealed_store.check(KEYS[0])
        sealed_store.touch(KEYS[0])
    assert warnings == []
    (finding,) = sealed_store.verify()
    assert finding.key == KEYS[1] and not finding.repaired
    assert sealed_store.get(KEYS[1]) is None
    assert len(warnings) == 2 and all("It stays in" in text for text in warnings)


def test_nothing_is_built_into_it_or_freed_from_it(sealed_store: Store) -> None:
    refused = pytest.raises(UserError, match="cannot be created or written")
    with refused, sealed_store.drafts({"out": (digest("c"), {})}):
        pytest.fail("it is built")
    with refused, sealed_store.scratch():
        pytest.fail("there is room")
    for dry_run in (True, False):
        with refused:
            collect(sealed_store, max_bytes=0, dry_run=dry_run)


def test_a_copy_whose_seals_are_stale_is_hashed_once(
    store: Store, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("a")
    copy, hashed = tmp_path / "copy", list[Path]()
    shutil.copytree(store.root, copy)
    real = integrity.file_sha256
    monkeypatch.setattr(integrity, "file_sha256", lambda path: (hashed.append(path), real(path))[1])
    with sealed(copy):
        there = Store(StoreConfig(dir=str(copy)))
        assert there.has(KEYS[0]) and there.has(KEYS[0])
        assert len(hashed) == 1
        assert there.check(KEYS[0])
        assert len(hashed) == 2
