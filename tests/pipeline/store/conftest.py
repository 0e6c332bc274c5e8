"""A store in a temporary folder, and a small result to put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.key import digest
from pipeline.store import Store, StoreConfig, StoredArtifact

Build = Callable[..., StoredArtifact]


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, warnings: list[str]) -> Store:
    return Store(StoreConfig(dir=str(tmp_path / "store")), warn=warnings.append)


@pytest.fixture
def build(store: Store) -> Build:
    return lambda name, **files: put(store, name, **files)


def put(store: Store, name: str, **files: bytes) -> StoredArtifact:
    """Build an artifact whose key is `digest(name)`, with these files (one if none given)."""
    key = digest(name)
    with store.drafts({"out": (key, {"kind": "work", "node": name})}) as drafts:
        for file, content in (files or {"data": name.encode()}).items():
            (drafts["out"].path / file).write_bytes(content)
    artifact = store.get(key)
    assert artifact is not None
    return artifact


def leftovers(store: Store) -> list[str]:
    """What lies in tmp/ and live/, but for small notes, which go after a day."""
    found = [*store.layout.tmp.iterdir(), *store.layout.live.iterdir()]
    return sorted(path.name for path in found if not path.name.startswith("note."))
