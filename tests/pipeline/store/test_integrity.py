"""Damage is found, put aside, said once, and the result can be built again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.key import digest
from pipeline.store import Store, StoreConfig
from pipeline.store import integrity as seals
from tests.pipeline.store.conftest import Build, put

KEY = digest("one")


def flip(path: Path, offset: int = 0) -> None:
    """Change one byte in place, whatever the file's mode is."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    path.chmod(mode)


def truncate(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size // 2)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped byte": lambda folder: flip(folder / "data"),
    "truncated": lambda folder: truncate(folder / "data"),
    "missing file": lambda folder: (folder / "data").unlink(),
    "a folder instead": lambda folder: ((folder / "data").unlink(), (folder / "data").mkdir()),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "truncated manifest": lambda folder: truncate(folder / "manifest.json"),
    "a file for the folder": lambda folder: (shutil.rmtree(folder), folder.write_text("?")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damage_is_put_aside_and_built_again(
    store: Store, build: Build, warnings: list[str], damage: Callable[[Path], object]
) -> None:
    damage(build("one").path)
    build("other")
    assert store.get(KEY) is None
    assert len(warnings) == 1 and KEY[:12] in warnings[0]
    assert any(path.name.startswith(KEY) for path in store.layout.quarantine.iterdir())
    assert store.get(KEY) is None and len(warnings) == 1
    assert build("one").file("data").read_bytes() == b"one"
    assert store.has(digest("other")) and store.verify() == []


def test_any_flipped_byte_of_a_manifest_shows(store: Store) -> None:
    size = (put(store, "one").path / "manifest.json").stat().st_size
    survived = []
    for offset in range(0, size, 19):
        flip(put(store, "one").path / "manifest.json", offset)
        found = store.get(KEY)
        if found is not None:
            survived.append(offset)
            assert found.file("data").read_bytes() == b"one"
            store.drop(KEY)
    # Only bytes between JSON's words may change without a meaning.
    assert len(survived) < size / 19 / 4


def test_damage_is_cleared_away_by_a_build_that_never_looked(store: Store, build: Build) -> None:
    flip(build("one").path / "data")
    with store.drafts({"out": (KEY, {})}) as drafts:
        (drafts["out"].path / "data").write_bytes(b"new")
    artifact = store.get(KEY)
    assert artifact is not None and artifact.file("data").read_bytes() == b"new"


def test_a_hit_reads_no_file(store: Store, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    build("one")

    def refuse(path: Path) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr(seals, "file_sha256", refuse)
    again = Store(StoreConfig(dir=str(store.root)))
    assert again.has(KEY)


def test_a_copied_store_is_hashed_once(
    store: Store, build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("one")
    shutil.copytree(store.root, tmp_path / "copy", copy_function=shutil.copy)
    hashed: list[Path] = []
    real = seals.file_sha256
    monkeypatch.setattr(seals, "file_sha256", lambda path: (hashed.append(path), real(path))[1])
    copy = Store(StoreConfig(dir=str(tmp_path / "copy")))
    assert copy.has(KEY) and copy.has(KEY)
    assert [path.name for path in hashed] == ["data"]


def test_a_flip_under_an_unchanged_stat_is_found_by_hashing(store: Store, build: Build) -> None:
    path = build("one").file("data")
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.has(KEY)
    assert not store.check(KEY)
    assert not store.has(KEY)


def test_verify_names_what_is_wrong_and_repairs_if_asked(store: Store, build: Build) -> None:
    for name in ("one", "two", "three"):
        build(name)
    path = store.root / KEY[:2] / KEY / "data"
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    (store.root / digest("two")[:2] / digest("two") / "stray").write_text("?")
    seen: list[tuple[int, int]] = []
    found = {f.node: f for f in store.verify(repair=False, progress=lambda *at: seen.append(at))}
    assert seen[-1] == (3, 3)
    assert found.keys() == {"one", "two"}
    assert "sha256 differs" in found["one"].problem and not found["one"].repaired
    assert "stray is not part of it" in found["two"].problem
    assert path.exists()
    assert [f.repaired for f in store.verify() if f.node == "one"] == [True]
    assert not path.exists() and store.has(digest("two"))
