"""What is committed is found again, complete, read-only, with its provenance."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from pipeline.errors import StageFailed, UserError
from pipeline.key import digest
from pipeline.store import Store, StoreConfig
from tests.pipeline.store.conftest import Build, leftovers

KEY = digest("one")
IDENTITY = {
    "kind": "compress",
    "node": "compress[0]",
    "version": 3,
    "params": {"bits": 4},
    "inputs": {"model": digest("model")},
    "versions": {"numpy": "2"},
}


def test_a_committed_result_is_found_with_its_files_meta_and_provenance(store: Store) -> None:
    with store.drafts({"weights": (KEY, IDENTITY)}) as drafts:
        draft = drafts["weights"]
        draft.write_json("deep/layer.json", {"b": [1, 2.5], "a": None})
        (draft.path / "shard.bin").write_bytes(b"weights")
        draft.meta["result"] = {"bits": 4.5}
        draft.record["peak_rss_bytes"] = 12345
        draft.record["warnings"] = ["a dead channel"]
        assert not store.has(KEY)
    artifact = store.get(KEY)
    assert artifact is not None and artifact.key == KEY
    assert artifact.json("deep/layer.json") == {"b": [1, 2.5], "a": None}
    assert artifact.file("shard.bin").read_bytes() == b"weights"
    assert artifact.meta == {"result": {"bits": 4.5}}
    assert artifact.bytes == 7 + artifact.file("deep/layer.json").stat().st_size
    assert {name: artifact.record[name] for name in IDENTITY} == IDENTITY
    assert artifact.record["output"] == "weights"
    assert artifact.record["peak_rss_bytes"] == 12345
    assert artifact.record["warnings"] == ["a dead channel"]
    assert artifact.record["seconds"] >= 0
    assert artifact.path == store.root / KEY[:2] / KEY
    assert leftovers(store) == []


def test_files_of_a_result_cannot_be_written(build: Build) -> None:
    artifact = build("one")
    files = [artifact.file("data"), artifact.path / "manifest.json"]
    assert [path.stat().st_mode & 0o777 for path in files] == [0o444, 0o444]


def test_several_outputs_of_a_node_are_committed_together(store: Store) -> None:
    keys = {name: digest(name) for name in ("gram", "absmax")}
    with store.drafts({name: (key, {}) for name, key in keys.items()}) as drafts:
        for name, draft in drafts.items():
            draft.write_json("name.json", name)
    for name, key in keys.items():
        artifact = store.get(key)
        assert artifact is not None and artifact.json("name.json") == name


@pytest.mark.parametrize("reason", [ValueError("broken"), KeyboardInterrupt()])
def test_a_stage_that_fails_leaves_nothing_behind(store: Store, reason: BaseException) -> None:
    with pytest.raises(type(reason)), store.drafts({"out": (KEY, {})}) as drafts:
        (drafts["out"].path / "half").write_bytes(b"half")
        raise reason
    assert not store.has(KEY)
    assert leftovers(store) == []


def test_a_result_of_no_files_is_a_result(store: Store) -> None:
    with store.drafts({"out": (KEY, {})}) as drafts:
        drafts["out"].meta["checked"] = True
    artifact = store.get(KEY)
    assert artifact is not None and artifact.meta == {"checked": True}


def test_a_second_build_of_a_key_keeps_the_first(store: Store, warnings: list[str]) -> None:
    for content in ("first", "second"):
        with store.drafts({"out": (KEY, {"node": "n"})}) as drafts:
            drafts["out"].write_json("v.json", content)
    artifact = store.get(KEY)
    assert artifact is not None and artifact.json("v.json") == "first"
    assert len(warnings) == 1 and "different bytes in v.json" in warnings[0]


def test_a_missing_file_is_named_with_those_there_are(build: Build) -> None:
    with pytest.raises(UserError, match=r"no file 'datum'; it has data"):
        build("one").file("datum")


@pytest.mark.parametrize("name", ["../out", "/abs", "manifest.json", ""])
def test_a_draft_cannot_write_outside_or_over_the_manifest(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="not a name"), store.drafts({"o": (KEY, {})}) as drafts:
        drafts["o"].write_json(name, {})


@pytest.mark.parametrize("place", ["file", "meta"])
def test_a_number_that_json_cannot_say_is_refused(store: Store, place: str) -> None:
    with (
        pytest.raises(StageFailed, match=r"compress\[0\]"),
        store.drafts({"out": (KEY, IDENTITY)}) as drafts,
    ):
        if place == "file":
            drafts["out"].write_json("v.json", math.nan)
        drafts["out"].meta["error"] = math.inf
    assert not store.has(KEY)


def test_a_symbolic_link_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="is a link"), store.drafts({"o": (KEY, {})}) as drafts:
        (drafts["o"].path / "model").symlink_to(tmp_path)


def test_a_hard_link_to_somebody_elses_file_becomes_a_copy(store: Store, tmp_path: Path) -> None:
    theirs = tmp_path / "tokenizer.json"
    theirs.write_text("{}")
    with store.drafts({"o": (KEY, {})}) as drafts:
        os.link(theirs, drafts["o"].path / "tokenizer.json")
    mode = theirs.stat().st_mode & 0o777
    assert mode != 0o444 and theirs.stat().st_nlink == 1


def test_a_hard_link_to_a_stored_file_stays_one(store: Store, build: Build) -> None:
    shard = build("shard").file("data")
    with store.drafts({"o": (KEY, {})}) as drafts:
        os.link(shard, drafts["o"].path / "shard")
    assert shard.stat().st_nlink == 2 and store.has(KEY) and store.has(digest("shard"))


def test_what_is_no_key_is_refused(store: Store) -> None:
    for text in ("../../etc", "", "AB" * 32):
        with pytest.raises(ValueError, match="not a key"):
            store.get(text)


def test_scratch_is_empty_and_goes_away(store: Store) -> None:
    with store.scratch() as folder:
        assert list(folder.iterdir()) == []
        (folder / "spill").write_bytes(b"x")
    assert leftovers(store) == []


def test_the_manifest_is_plain_json(build: Build) -> None:
    record = json.loads((build("one").path / "manifest.json").read_text())
    assert record["schema"] == 1 and record["files"]["data"]["size"] == 3


@pytest.mark.parametrize(
    "options", [{"lock": "mutex"}, {"dir": ""}, {"max_bytes": -1}], ids=lambda o: next(iter(o))
)
def test_a_config_that_means_nothing_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"store.{next(iter(options))}"):
        StoreConfig(**options)  # type: ignore[arg-type]  # wrong values are the point
