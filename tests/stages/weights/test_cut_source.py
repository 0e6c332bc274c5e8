"""Parts of fused tensors: read from their own block of the file, alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from pipeline.errors import UserError
from stages.model.experts.cut import Cut
from stages.weights.cut_source import CutSource
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.writer import pieces

FUSED = torch.arange(3 * 8 * 5, dtype=torch.float32).reshape(3, 8, 5)
CUTS = {
    "half": Cut(stored="fused", index=1, start=4, stop=8),
    "odd": Cut(stored="fused", index=2, start=1, step=2),
    "turned": Cut(stored="fused", index=0, stop=2, transposed=True),
    "bias": Cut(stored="rows", index=2, start=1, step=2),
}
WANTED = {
    "half": FUSED[1, 4:],
    "odd": FUSED[2, 1::2],
    "turned": FUSED[0].T[:2],
    "bias": FUSED[2, 1::2, 0],
}


@pytest.fixture
def source(tmp_path: Path) -> SafetensorsSource:
    tensors = {"fused": FUSED, "rows": FUSED[:, :, 0].contiguous(), "plain": torch.ones(2)}
    save_file(tensors, tmp_path / "model.safetensors")
    return SafetensorsSource.of_file(tmp_path / "model.safetensors")


def test_parts_have_specs_values_and_bytes_of_their_own(source: SafetensorsSource) -> None:
    view = CutSource(source, CUTS)
    found = view.read([*CUTS, "plain"])
    assert list(found) == [*CUTS, "plain"]
    for name, wanted in WANTED.items():
        assert torch.equal(found[name], wanted)
        assert view.specs()[name].shape == tuple(wanted.shape)
        stored = b"".join(bytes(piece) for piece in pieces(view, name))
        assert stored == wanted.contiguous().numpy().tobytes()


def test_only_the_block_of_a_part_is_read(
    source: SafetensorsSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[tuple[str, int]] = []
    read = SafetensorsSource.read_block

    def counted(self: SafetensorsSource, name: str, index: int) -> Tensor:
        blocks.append((name, index))
        return read(self, name, index)

    monkeypatch.setattr(SafetensorsSource, "read_block", counted)
    monkeypatch.delattr(SafetensorsSource, "read")
    first = Cut(stored="fused", index=1, stop=4)
    CutSource(source, {**CUTS, "first": first}).read(["first", "half"])
    assert blocks == [("fused", 1)]


def test_a_part_that_is_not_there_is_an_error(source: SafetensorsSource) -> None:
    with pytest.raises(UserError, match="no matrix or vector 3"):
        CutSource(source, {"gone": Cut(stored="fused", index=3)}).specs()
    with pytest.raises(IndexError):
        source.read_block("fused", 3)


def test_a_cut_survives_json() -> None:
    for cut in CUTS.values():
        assert Cut.from_json(cut.to_json()) == cut
