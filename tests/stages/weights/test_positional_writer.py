"""A file whose tensors come in any order is the one that is written of all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stages.weights.positional_writer import MisfitError, PlacedFile
from stages.weights.safetensors_file import Scratch
from stages.weights.writer import spec_of, write_tensors

DTYPES = (torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.int32, torch.int64)
TENSORS = {
    "codes": torch.arange(15, dtype=torch.int8).reshape(3, 5),
    "scale": torch.ones(3, 1, dtype=torch.bfloat16),
    "shape": torch.tensor([3, 5]),
}


@given(
    data=st.data(),
    sizes=st.lists(
        st.tuples(st.sampled_from(DTYPES), st.integers(0, 9), st.integers(1, 7)),
        min_size=1,
        max_size=6,
    ),
)
def test_the_order_of_arrival_does_not_change_a_byte(
    data: st.DataObject,
    sizes: list[tuple[torch.dtype, int, int]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("placed")
    tensors: dict[str, Tensor] = {
        f"t{i}": torch.full((rows, columns), i, dtype=torch.float32).to(dtype)
        for i, (dtype, rows, columns) in enumerate(sizes)
    }
    write_tensors(folder / "whole", tensors)
    with PlacedFile(folder / "placed", [spec_of(n, t) for n, t in tensors.items()]) as file:
        for name in data.draw(st.permutations(list(tensors))):
            file.put(name, tensors[name])
        assert file.names == sorted(tensors)
    assert (folder / "placed").read_bytes() == (folder / "whole").read_bytes()


def test_memory_may_be_used_again_once_a_tensor_was_set(tmp_path: Path) -> None:
    scratch, written = Scratch(), {}
    with PlacedFile(tmp_path / "a", [spec_of(n, t) for n, t in TENSORS.items()]) as file:
        for name, tensor in TENSORS.items():
            space = torch.from_numpy(scratch.take(tensor.nbytes))
            space.copy_(tensor.flatten().view(torch.uint8))
            file.put(name, space.view(tensor.dtype).reshape(tensor.shape))
            written[name] = tensor
    write_tensors(tmp_path / "b", written)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_was_not_announced_or_did_not_come_is_an_error(tmp_path: Path) -> None:
    specs = [spec_of(n, t) for n, t in TENSORS.items()]
    with pytest.raises(MisfitError, match="scale came as"), PlacedFile(tmp_path / "a", specs) as a:
        a.put("scale", torch.ones(3, 2, dtype=torch.bfloat16))
    with pytest.raises(MisfitError, match="codes was announced"), PlacedFile(tmp_path / "b", specs):
        pass


def test_taken_back_means_missing(tmp_path: Path) -> None:
    specs = [spec_of(n, t) for n, t in TENSORS.items()]
    with pytest.raises(MisfitError, match="shape was"), PlacedFile(tmp_path / "a", specs) as file:
        for name, tensor in TENSORS.items():
            file.put(name, tensor)
        file.take_back("shape")
        assert len(file.names) == 2 and "shape" not in file.names


def test_a_tensor_may_come_by_rows(tmp_path: Path) -> None:
    write_tensors(tmp_path / "whole", TENSORS)
    with PlacedFile(tmp_path / "rows", [spec_of(n, t) for n, t in TENSORS.items()]) as file:
        file.put_rows("codes", 1, TENSORS["codes"][1:])
        file.put("scale", TENSORS["scale"])
        file.put("shape", TENSORS["shape"])
        with pytest.raises(MisfitError, match="2 of 3 rows of codes"):
            file.put("codes", TENSORS["codes"].to("meta"))
        file.put_rows("codes", 0, TENSORS["codes"][:1])
        file.put("codes", TENSORS["codes"].to("meta"))
    assert (tmp_path / "rows").read_bytes() == (tmp_path / "whole").read_bytes()


def test_rows_of_something_else_are_refused(tmp_path: Path) -> None:
    specs = [spec_of(n, t) for n, t in TENSORS.items()]
    for name, rows in (("codes", TENSORS["codes"].int()), ("scales", TENSORS["scale"])):
        with (
            pytest.raises(MisfitError, match="rows of"),
            PlacedFile(tmp_path / "a", specs) as file,
        ):
            file.put_rows(name, 0, rows)
