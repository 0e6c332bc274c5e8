"""NaN and infinity in weights: found in every float type, wherever they are, and named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.errors import UserError
from stages.weights.finite import FLOATS, check_finite
from stages.weights.safetensors_source import PIECE, SafetensorsSource

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E4M3": torch.float8_e4m3fn,
}
INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def told(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> str:
    path = tmp_path / "a.safetensors"
    save_file(tensors, path)
    shares: list[float] = []
    try:
        check_finite(SafetensorsSource.of_file(path), progress=shares.append)
    except UserError as error:
        return error.what
    assert shares == sorted(shares) and shares[-1:] in ([], [1.0])
    return ""


@pytest.mark.parametrize("name", FLOATS)
def test_every_bit_pattern_is_judged_as_torch_does(tmp_path: Path, name: str) -> None:
    width = FLOATS[name].width
    if width <= 2:
        patterns = torch.arange(1 << (8 * width)).to(INTEGERS[width])
        values = patterns.view(DTYPES[name])
    else:
        edge = torch.tensor([0.0, 1.0, float("inf"), float("nan"), torch.finfo(DTYPES[name]).max])
        values = torch.cat([edge.to(DTYPES[name]), -edge.to(DTYPES[name])])
        values[4], values[9] = torch.finfo(DTYPES[name]).max, torch.finfo(DTYPES[name]).min
    finite = values.to(torch.float64).isfinite()
    assert told(tmp_path, {"a.weight": values[finite]}) == ""
    for value in values[~finite]:
        kind = "NaN" if bool(value.to(torch.float64).isnan()) else "infinity"
        tensor = torch.zeros(3, 4).to(DTYPES[name])
        tensor.view(INTEGERS[width])[1, 2] = value.view(INTEGERS[width])
        assert told(tmp_path, {"a.weight": tensor}).endswith(f"a.weight has {kind} at [1, 2]")
        if width == 2:
            break  # each of 1,024 files would say the same


def test_the_place_counts_all_pieces(tmp_path: Path) -> None:
    tensor = torch.zeros(3, PIECE, dtype=torch.bfloat16)
    tensor[2, 7] = float("-inf")
    assert "b has infinity at [2, 7]" in told(tmp_path, {"a": torch.ones(2), "b": tensor})


def test_exponents_and_integers(tmp_path: Path) -> None:
    exponents = torch.tensor([[0, 127, 254]], dtype=torch.uint8)
    assert told(tmp_path, {"a": exponents.view(torch.float8_e8m0fnu)}) == ""
    exponents[0, 1] = 255
    assert "a has NaN at [0, 1]" in told(tmp_path, {"a": exponents.view(torch.float8_e8m0fnu)})
    assert told(tmp_path, {"a": exponents, "b": torch.tensor(-1)}) == ""


def test_many_are_counted_and_masks_may_be_infinite(tmp_path: Path) -> None:
    wrong = {f"w{i}": torch.tensor(float("nan")) for i in range(8)}
    text = told(tmp_path, {**wrong, "layer.attn_mask": torch.full((2,), float("-inf"))})
    assert "w4 has NaN at []" in text and text.endswith("and 3 tensors more")
    assert told(tmp_path, {"layer.attn_mask": torch.full((2,), float("-inf"))}) == ""
