"""NaN and infinity in GGUF files: found in the scales of every type of block, named and placed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

from pipeline.errors import UserError
from stages.load.gguf_names import _can_dequantise
from stages.weights.dtypes import torch_dtype
from stages.weights.gguf_finite import FIELDS, check_gguf_finite, unusual

TYPES = [kind.name for kind in GGMLQuantizationType if _can_dequantise(kind)]
COUNT = 600


def blocks_of(kind: str) -> np.ndarray:
    """Random bytes, in which each bit pattern of a scale's exponent is as likely as another."""
    width = GGML_QUANT_SIZES[GGMLQuantizationType[kind]][1]
    count = COUNT * (20 if width < 8 else 1)
    return np.random.default_rng(1).integers(0, 256, (count, width), dtype=np.uint8)


def test_every_type_that_can_be_read_is_known() -> None:
    assert set(TYPES) <= set(FIELDS)


@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
@pytest.mark.parametrize("kind", TYPES)
def test_no_block_that_is_not_finite_has_usual_scales(kind: str, dtype: str) -> None:
    blocks = blocks_of(kind)
    values = dequantize(blocks.reshape(-1), GGMLQuantizationType[kind]).reshape(len(blocks), -1)
    wide = torch.from_numpy(np.array(values, dtype=np.float32)).to(torch_dtype(dtype))
    wrong = set(np.flatnonzero(~wide.isfinite().all(1).numpy()).tolist())
    asked = set(unusual(blocks, kind, dtype).tolist())
    assert wrong <= asked
    if dtype == "F32" and kind != "MXFP4":
        assert asked == wrong  # where nothing can overflow, only a wrong scale is unusual
    assert wrong or kind == "NVFP4"


def written(path: Path, kind: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """A file with one tensor of zeros of a type; its entry in a table of tensors."""
    size, width = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    length = int(np.prod(shape)) // size * width
    path.write_bytes(bytes(64 + length))
    place = {"start": 64, "length": length, "rows": list(shape), "shape": list(shape)}
    return {"stored": "blk.0.x.weight", "type": kind, **place}


def told(path: Path, entry: dict[str, Any], dtype: str) -> str:
    shares: list[float] = []
    try:
        check_gguf_finite(path, {"layers.0.x": entry}, dtype=dtype, progress=shares.append)
    except UserError as error:
        return error.what
    assert shares == [1.0]
    return ""


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q4_0", "Q8_0", "Q4_K", "Q6_K", "IQ1_M"])
def test_the_tensor_and_the_place_are_named(tmp_path: Path, kind: str) -> None:
    path, (size, width) = tmp_path / "x.gguf", GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    entry = written(path, kind, (4, 2 * size))
    assert told(path, entry, "BF16") == ""
    with path.open("r+b") as file:
        file.seek(64 + 5 * width)  # the second block of row 2
        file.write(b"\xff" * width)
    assert told(path, entry, "BF16") == (
        "the model has weights that are not finite: "
        f"layers.0.x ('blk.0.x.weight', {kind}) has NaN at [2, {size}]"
    )


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_what_overflows_in_the_dtype_of_the_weights_is_infinite(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    entry = written(path, "F32", (2, 3))
    values = np.array([[1.0, 65504.0, 2.0], [3.0, -70000.0, 4.0]], dtype=np.float32)
    path.write_bytes(bytes(64) + values.tobytes())
    assert told(path, entry, "BF16") == told(path, entry, "F32") == ""
    assert told(path, entry, "F16").endswith("has infinity at [1, 1]")
    entry = written(path, "Q8_0", (1, 64))
    block = gguf.quantize(np.full((1, 64), 8e4, dtype=np.float32), GGMLQuantizationType.Q8_0)
    path.write_bytes(bytes(64) + block.tobytes())
    assert told(path, entry, "BF16") == ""
    assert told(path, entry, "F16").endswith("has infinity at [0, 0]")
