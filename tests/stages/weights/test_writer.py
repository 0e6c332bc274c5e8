"""Files written piece by piece, read by the safetensors library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from stages.verify.tensor_checks import equal_bytes
from stages.weights import open_checkpoint
from stages.weights.aliased_source import Aliased
from stages.weights.source import TensorSpec
from stages.weights.writer import copy_tensors, pieces, write_tensors

TENSORS = {
    "odd": torch.arange(7, dtype=torch.uint8),
    "half": torch.randn(3, 5).bfloat16(),
    "float": torch.randn(2, 3),
    "eight": torch.randn(4, 4).to(torch.float8_e4m3fn),
    "shape": torch.tensor([3, 5]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        tensor.dtype == TENSORS[name].dtype
        and tensor.shape == TENSORS[name].shape
        and torch.equal(
            tensor.flatten().view(torch.uint8), TENSORS[name].flatten().view(torch.uint8)
        )
        for name, tensor in found.items()
    )


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS)
    assert same(load_file(path))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_copies_in_pieces_have_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.weights.safetensors_source.PIECE", 4)
    write_tensors(tmp_path / "model.safetensors", TENSORS)
    source = open_checkpoint(tmp_path)
    assert len(list(pieces(source, "half"))) == 8
    copy_tensors(tmp_path / "copy.safetensors", list(source.specs().values()), source)
    assert (tmp_path / "copy.safetensors").read_bytes() == (
        tmp_path / "model.safetensors"
    ).read_bytes()


def test_an_alias_is_copied_under_its_name(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", TENSORS)
    source = Aliased(open_checkpoint(tmp_path), {"other": "half"})
    copy_tensors(tmp_path / "copy.safetensors", [source.specs()["other"]], source)
    assert torch.equal(load_file(tmp_path / "copy.safetensors")["other"], TENSORS["half"])


def test_a_source_that_gives_other_bytes_than_it_said_is_found(tmp_path: Path) -> None:
    write_tensors(tmp_path / "model.safetensors", TENSORS)
    wrong = TensorSpec(name="half", shape=(3, 6), dtype="BF16")
    with pytest.raises(ValueError, match="other sizes than was said"):
        copy_tensors(tmp_path / "copy.safetensors", [wrong], open_checkpoint(tmp_path))


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ([b"abc", b"d"], [b"ab", b"cd"], True),
        ([b"abc"], [b"abc", b"d"], False),
        ([b"abd"], [b"abc"], False),
        ([], [], True),
    ],
)
def test_bytes_are_compared_however_they_are_cut(
    one: list[bytes], other: list[bytes], equal: bool
) -> None:
    def views(parts: list[bytes]) -> Iterator[memoryview]:
        return (memoryview(part) for part in parts)

    assert equal_bytes(views(one), views(other)) is equal
