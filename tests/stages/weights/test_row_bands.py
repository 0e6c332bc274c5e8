"""A matrix of a file, read by rows, is the one that is read whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from stages.weights import open_checkpoint
from stages.weights import row_bands as module
from stages.weights.row_bands import InFile, InMemory, matrix_of
from stages.weights.safetensors_file import Scratch
from stages.weights.safetensors_source import SafetensorsSource

TENSORS = {
    "before": torch.ones(3),
    "wide": torch.arange(7 * 30, dtype=torch.float32).reshape(30, 7).to(torch.bfloat16),
    "words": torch.arange(20, dtype=torch.int32).reshape(10, 2),
}


@pytest.fixture
def source(tmp_path: Path) -> SafetensorsSource:
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    found = open_checkpoint(tmp_path)
    assert isinstance(found, SafetensorsSource)
    return found


def test_rows_are_those_of_the_whole(source: SafetensorsSource) -> None:
    for name in ("wide", "words"):
        matrix = matrix_of(source, source.spec(name), Scratch())
        assert isinstance(matrix, InFile)
        assert (matrix.shape, matrix.dtype) == (TENSORS[name].shape, TENSORS[name].dtype)
        for start, stop in ((0, 10), (3, 4), (9, 10), (5, 5)):
            assert torch.equal(matrix.read(start, stop), TENSORS[name][start:stop])


def test_other_sources_are_read_whole(source: SafetensorsSource) -> None:
    class Other:
        def specs(self) -> object:
            return source.specs()

        def read(self, names: list[str], *, device: str = "cpu") -> dict[str, torch.Tensor]:
            return source.read(names, device=device)

    matrix = matrix_of(Other(), source.spec("wide"), Scratch())  # type: ignore[arg-type]
    assert isinstance(matrix, InMemory) and list(matrix.bands(4)) == [(0, 30)]
    assert torch.equal(matrix.read(2, 9), TENSORS["wide"][2:9])


@given(band=st.integers(1, 500), multiple=st.integers(1, 40))
def test_bands_follow_each_other_and_end_at_multiples(band: int, multiple: int) -> None:
    spec = module.TensorSpec(name="wide", shape=(30, 7), dtype="BF16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "WIDE", 0)
        patch.setattr(module, "BAND", band)
        matrix = InFile(None, spec)  # type: ignore[arg-type]
        bands = list(matrix.bands(multiple))
    assert [start for start, _ in bands] == [0, *(stop for _, stop in bands[:-1])]
    assert bands[-1][1] == 30 and all(stop % multiple == 0 for _, stop in bands[:-1])
    assert all(stop - start <= max(multiple, band // 14) for start, stop in bands)


def test_a_matrix_that_is_not_large_is_one_band(source: SafetensorsSource) -> None:
    assert list(InFile(source, source.spec("wide")).bands(4)) == [(0, 30)]
