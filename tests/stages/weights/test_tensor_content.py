"""Tensors as the content of a file: read as copies, written as the same bytes, moved."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import save_file

from stages.weights import tensor_content
from stages.weights.tensor_content import TensorContent, reader
from tests.stages.calibrate.fakes import FakeArtifact


def test_a_reader_has_copies_of_its_own() -> None:
    content = TensorContent.of({"x": torch.arange(6.0)})
    content.read(["x"])["x"].mul_(0)
    assert content.read(["x"])["x"].tolist() == [0, 1, 2, 3, 4, 5]


def test_the_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    tensors = {"b": torch.rand(3, 4).bfloat16(), "a": torch.rand(2).double()}
    TensorContent.of(tensors).write(tmp_path / "one")
    save_file(tensors, tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_a_part_of_a_tensor_does_not_keep_the_rest() -> None:
    whole = torch.rand(100, 4)
    content = TensorContent.of({"x": whole[:2], "y": whole[:, :1], "z": whole})
    assert content.tensors["x"].untyped_storage().nbytes() == 32
    assert content.tensors["y"].is_contiguous()
    assert content.tensors["z"].data_ptr() == whole.data_ptr()
    assert content.bytes == 32 + 400 + 1600


def test_on_a_cpu_the_host_is_the_only_memory() -> None:
    content = TensorContent.of({"x": torch.ones(2)})
    [memory] = content.memories
    assert memory.name == "cpu" and memory.capacity == psutil.virtual_memory().total
    assert content.moved("cpu") is content


def test_what_lies_elsewhere_can_move_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_content, "_total", lambda device: 1000)
    content = TensorContent.of({"x": torch.ones(2, device="meta")})
    device, host = content.memories
    assert (device.name, device.capacity, host.name) == ("meta", 1000, "cpu")
    moved: list[torch.Tensor] = []
    monkeypatch.setattr(tensor_content, "_pinned", lambda x: moved.append(x) or torch.ones(2))
    assert content.moved("cpu").memories[0].name == "cpu" and len(moved) == 1


def test_where_nothing_can_be_pinned_it_is_a_plain_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("cannot pin")

    monkeypatch.setattr(torch, "empty_like", refuse)
    assert tensor_content._pinned(torch.ones(2)).tolist() == [1, 1]


def test_a_stored_file_is_read_as_well(tmp_path: Path) -> None:
    save_file({"x": torch.arange(3)}, tmp_path / "file")
    assert reader(FakeArtifact(tmp_path), "file").read(["x"])["x"].tolist() == [0, 1, 2]
