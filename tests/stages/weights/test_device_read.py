"""Reading to another device piece by piece, and asking the system to read from the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.outside import FileChanged
from stages.weights import device_read, open_checkpoint
from stages.weights.safetensors_source import SafetensorsSource

ELSEWHERE = "cpu:0"
"""Another name than `cpu`, so that tensors take the way of those for a GPU."""


@pytest.fixture
def given(tmp_path: Path) -> dict[str, torch.Tensor]:
    tensors = {
        "half": torch.rand(7, 5).bfloat16(),
        "bytes": torch.randint(0, 255, (13,), dtype=torch.uint8),
        "empty": torch.empty(0, 4),
        "scalar": torch.tensor(3.0, dtype=torch.float64),
        "float8": torch.rand(4, 4).to(torch.float8_e4m3fn),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    return tensors


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_what_comes_in_pieces_is_the_same(
    tmp_path: Path, given: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(device_read, "PIECE", piece)
    found = open_checkpoint(tmp_path).read(given, device=ELSEWHERE)
    assert list(found) == list(given)
    for name, tensor in given.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert found[name].flatten().view(torch.uint8).equal(tensor.flatten().view(torch.uint8))
    assert found["half"].untyped_storage().nbytes() == found["half"].nbytes


def test_a_file_that_was_cut_off_meanwhile_is_told(
    tmp_path: Path, given: dict[str, torch.Tensor]
) -> None:
    source = open_checkpoint(tmp_path)
    source.specs()
    path = tmp_path / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(FileChanged, match=r"changed while it was in use: it had \d+ bytes"):
        source.read(given, device=ELSEWHERE)


def test_the_system_is_asked_for_the_places_of_the_tensors(
    tmp_path: Path, given: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, asked = tmp_path / "model.safetensors", list[tuple[int, int]]()
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *place: asked.append(place[:2]))
    source = SafetensorsSource.of_file(path)
    assert source.will_need(["half", "bytes"]) == 70 + 13
    content = path.read_bytes()
    pieces = {content[start : start + length] for start, length in asked}
    assert pieces == {
        given["half"].view(torch.uint8).numpy().tobytes(),
        given["bytes"].numpy().tobytes(),
    }


def test_where_the_file_is_gone_nothing_happens(
    tmp_path: Path, given: dict[str, torch.Tensor]
) -> None:
    source = SafetensorsSource.of_file(tmp_path / "model.safetensors")
    source.specs()
    (tmp_path / "model.safetensors").unlink()
    assert source.will_need(given) == 0
