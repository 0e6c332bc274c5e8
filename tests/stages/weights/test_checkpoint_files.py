from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import ManyErrors, UserError
from stages.weights import open_checkpoint
from stages.weights.checkpoint_files import find_weights, read_headers
from tests.stages.weights.conftest import write_index

SHARD = "model-00002-of-00003.safetensors"


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/../../x", "..\\x", "C:\\x", "", "x\0y"]
)
def test_an_index_that_leaves_its_folder_is_refused(sharded: Path, name: str) -> None:
    write_index(sharded, {"x": name})
    with pytest.raises(UserError, match="is no path inside the folder") as error:
        open_checkpoint(sharded)
    assert repr(name) in str(error.value)


def test_a_link_out_of_the_folder_is_refused(sharded: Path, tmp_path: Path) -> None:
    (sharded / SHARD).rename(tmp_path / "elsewhere.safetensors")
    (sharded / SHARD).symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(UserError, match="link that leads out of its folder"):
        open_checkpoint(sharded)


def test_links_of_a_hub_snapshot_to_its_blobs_are_followed(tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    save_file({"x": torch.ones(2)}, blobs / "1234")
    (snapshot / "model.safetensors").symlink_to(Path("../../blobs/1234"))
    assert open_checkpoint(snapshot).read(["x"])["x"].sum() == 2


def test_links_of_a_hub_snapshot_to_anywhere_else_are_refused(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    save_file({"x": torch.ones(2)}, tmp_path / "outside")
    (snapshot / "model.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link that leads out"):
        open_checkpoint(snapshot)


def test_missing_shards_and_bad_names_are_told_at_once(sharded: Path) -> None:
    write_index(sharded, {"x": "gone.safetensors", "y": "../y.safetensors", "z": SHARD})
    with pytest.raises(ManyErrors) as error:
        open_checkpoint(sharded)
    text = str(error.value)
    assert "gone.safetensors" in text and "../y.safetensors" in text


def test_a_tensor_that_its_shard_lacks_is_named(sharded: Path) -> None:
    write_index(sharded, {"model.layers.7.norm.weight": SHARD})
    with pytest.raises(UserError, match=r"00002.*lacks 1 tensors.*model\.layers\.7\.norm\.weight"):
        open_checkpoint(sharded).specs()


def test_every_cut_off_shard_is_told(sharded: Path) -> None:
    for shard in sorted(sharded.glob("*.safetensors"))[:2]:
        with open(shard, "r+b") as out:
            out.truncate(shard.stat().st_size - 3)
    with pytest.raises(ManyErrors) as error:
        read_headers(find_weights(sharded))
    assert len(error.value.errors) == 2


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "{"])
def test_a_malformed_index_is_one_error(sharded: Path, text: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"index\.json"):
        open_checkpoint(sharded)


def test_an_index_entry_that_is_no_name_is_refused(sharded: Path) -> None:
    write_index(sharded, {"x": 3})
    with pytest.raises(UserError, match="tensor 'x' is in 3"):
        open_checkpoint(sharded)


def test_pickle_weights_are_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UserError, match="pickle") as error:
        open_checkpoint(tmp_path)
    assert "safetensors" in error.value.remedy


def test_shards_without_an_index_are_refused(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match="no index"):
        open_checkpoint(sharded)


def test_an_empty_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights"):
        open_checkpoint(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        open_checkpoint(tmp_path / "gone")


@pytest.mark.parametrize("name", ["model", "consolidated", "anything"])
def test_a_single_file_is_found_by_any_usual_name(tmp_path: Path, name: str) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / f"{name}.safetensors")
    assert list(open_checkpoint(tmp_path).specs()) == ["x"]
