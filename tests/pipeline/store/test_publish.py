"""Publishing: big files by hard link, small ones as copies, nobody's folder overwritten."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.key import digest
from pipeline.store import Store, StoredArtifact, link_tree

BIG = bytes(1 << 20)


def checkpoint(store: Store, name: str = "save") -> StoredArtifact:
    key = digest(name)
    with store.drafts({"out": (key, {"node": name})}) as drafts:
        drafts["out"].write_json("checkpoint/config.json", {"name": name})
        drafts["out"].write_json("checkpoint/sub/extra.json", [1])
        (drafts["out"].path / "checkpoint" / "model.safetensors").write_bytes(BIG)
        drafts["out"].write_json("internal.json", {})
    artifact = store.get(key)
    assert artifact is not None
    return artifact


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoint"


def test_big_files_are_linked_and_small_ones_may_be_edited(store: Store, target: Path) -> None:
    artifact = checkpoint(store)
    done = link_tree(artifact, target, "checkpoint")
    assert names(target) == {"config.json", "sub/extra.json", "model.safetensors"}
    assert (done.path, done.linked) == (target, len(BIG))
    stored = artifact.file("checkpoint/model.safetensors")
    assert (target / "model.safetensors").samefile(stored)
    (target / "config.json").write_text("edited")
    assert artifact.json("checkpoint/config.json") == {"name": "save"}
    assert store.check(artifact.key)


def test_without_hard_links_files_are_copied(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    artifact = checkpoint(store)
    monkeypatch.setattr(os, "link", refuse)
    done = link_tree(artifact, target, "checkpoint")
    assert done.linked == 0 and done.copied > len(BIG)
    assert (target / "model.safetensors").read_bytes() == BIG


def test_publishing_again_does_nothing(store: Store, target: Path) -> None:
    artifact = checkpoint(store)
    link_tree(artifact, target, "checkpoint")
    inode = target.stat().st_ino
    again = link_tree(artifact, target, "checkpoint")
    assert (again.linked, again.copied) == (0, 0) and target.stat().st_ino == inode


def test_an_earlier_publication_is_replaced(store: Store, target: Path) -> None:
    link_tree(checkpoint(store), target, "checkpoint")
    link_tree(checkpoint(store, "other"), target, "checkpoint")
    assert "other" in (target / "config.json").read_text()
    assert [path.name for path in target.parent.iterdir() if path.is_dir()] == ["checkpoint"]


def test_an_edited_publication_is_kept_beside(store: Store, target: Path) -> None:
    link_tree(checkpoint(store), target, "checkpoint")
    (target / "config.json").write_text("edited by hand")
    link_tree(checkpoint(store), target, "checkpoint")
    assert "save" in (target / "config.json").read_text()
    aside = target.with_name("checkpoint.edited-1")
    assert (aside / "config.json").read_text() == "edited by hand"


def test_a_folder_of_other_origin_is_left_alone(store: Store, target: Path) -> None:
    target.mkdir(parents=True)
    link_tree(checkpoint(store), target, "checkpoint")
    foreign = target.with_name("foreign")
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="was not published from the store"):
        link_tree(checkpoint(store), foreign, "checkpoint")
    assert names(foreign) == {"thesis.tex"}


@pytest.mark.parametrize("step", ["rename", "replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_interrupted_at_a_rename_it_goes_on(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    link_tree(checkpoint(store), target, "checkpoint")
    new = checkpoint(store, "other")
    real = getattr(Path, step)
    calls: list[Path] = []

    def interrupt(path: Path, to: Path) -> Path:
        calls.append(path)
        if len(calls) == nth:
            raise KeyboardInterrupt
        result: Path = real(path, to)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, interrupt)
        try:
            link_tree(new, target, "checkpoint")
        except KeyboardInterrupt:
            pass
    link_tree(new, target, "checkpoint")
    assert "other" in (target / "config.json").read_text()
    assert not target.with_name("checkpoint.edited-1").exists()


def test_a_full_disk_at_the_target_names_the_target(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = checkpoint(store)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(UserError, match=f"the folder {target.parent}"):
        link_tree(artifact, target, "checkpoint")
    assert not target.exists()
