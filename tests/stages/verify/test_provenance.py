"""Checkpoints prove themselves: every flipped bit is found, and what was added is named."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes.verify import verify
from pipeline.registry import Registry
from stages.formats.provenance import PROVENANCE, checked_files, prove, render
from tests.pipeline.tiny import composed

FLIPS = 200


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint")


def test_every_file_is_listed_and_a_copy_proves_itself(checkpoint: Path) -> None:
    proof = prove(checkpoint)
    assert proof.faults == () and proof.added == () and proof.digest
    listed = json.loads((checkpoint / PROVENANCE).read_text())["files"]
    files = {str(path.relative_to(checkpoint)) for path in checkpoint.rglob("*") if path.is_file()}
    assert listed.keys() == files - {PROVENANCE}
    assert {"README.md", "config.json", "recipe.yaml"} < files


def test_every_flipped_bit_is_found(checkpoint: Path) -> None:
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    draw = random.Random(17)
    # every file has its turn, and provenance.json, which lists the others, one in four
    places = [*files, *[checkpoint / PROVENANCE] * (len(files) // 3)]
    for number in range(FLIPS):
        path = places[number % len(places)]
        sound = path.read_bytes()
        at = draw.randrange(len(sound))
        changed = bytes([sound[at] ^ 1 << draw.randrange(8)])
        path.write_bytes(sound[:at] + changed + sound[at + 1 :])
        assert faults_of(checkpoint), f"{path.name}, byte {at}: {sound[at]} -> {changed[0]}"
        path.write_bytes(sound)
    assert faults_of(checkpoint) == []


def faults_of(folder: Path) -> list[str]:
    check = checked_files(folder)
    return [] if check["ok"] else [check["detail"]]


def test_what_is_missing_is_a_fault_and_what_was_added_is_named(checkpoint: Path) -> None:
    (checkpoint / "notes.txt").write_text("ours")
    check = checked_files(checkpoint)
    assert check["ok"] is True and "not part of the checkpoint: notes.txt" in check["detail"]
    (checkpoint / "recipe.yaml").unlink()
    assert "recipe.yaml is missing" in checked_files(checkpoint)["detail"]


def test_a_checkpoint_without_checksums_is_told_so(checkpoint: Path) -> None:
    content = json.loads((checkpoint / PROVENANCE).read_text())
    old = {name: content[name] for name in ("source", "keys", "compressed_tensors")}
    (checkpoint / PROVENANCE).write_text(json.dumps(old))
    check = checked_files(checkpoint)
    assert check["ok"] is None and "may go unnoticed" in check["detail"]


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "", "a\0b"])
def test_a_listing_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / PROVENANCE).write_text(render({}, {name: "0" * 64}))
    check = checked_files(tmp_path)
    assert check["ok"] is False and "no path inside the folder" in check["detail"]


@pytest.mark.parametrize("listed", [None, [], {"a": 1}, {"a": "x" * 64}, {"a": "0" * 63}])
def test_a_listing_of_another_kind_is_refused(tmp_path: Path, listed: Any) -> None:
    (tmp_path / PROVENANCE).write_text(json.dumps({"files": listed, "digest": "0" * 64}))
    assert checked_files(tmp_path)["ok"] is False


def test_verify_reads_the_checksums_and_finds_an_edited_card(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["mode=verify", "device=cpu", f"checkpoint={checkpoint}"]
    config = load_config(composed(own_configs(), *given, name="config"), Registry.load())
    assert verify(config, tmp_path) == 0
    (checkpoint / "README.md").write_text("another card")
    assert verify(config, tmp_path) == 1
    assert "README.md has other bytes" in capsys.readouterr().out.replace("\n", " ")
