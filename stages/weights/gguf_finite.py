"""Find NaN and infinity in the tensors of a GGUF file by the scales of its blocks.

Codes of a quantized block are integers: what it stands for is finite as long as its scales and
offsets are, and not too large. So only these are read, and blocks in which one is unusual are
dequantized, to tell for certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from pipeline.errors import UserError
from stages.weights.dtypes import torch_dtype
from stages.weights.finite import THREADS, refuse

Field = tuple[int, str]
"""Offset of a scale in its block, and what it is: a type of FLOATS, or E8M0."""

FIELDS: Mapping[str, tuple[Field, ...]] = {
    **{name: ((0, name),) for name in ("F32", "F16", "BF16")},
    **dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "Q1_0", "IQ4_NL", "IQ4_XS"), ((0, "F16"),)),
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"), ((0, "F16"),)),
    **dict.fromkeys(("Q4_1", "Q5_1", "Q8_1", "Q4_K", "Q5_K"), ((0, "F16"), (2, "F16"))),
    "Q2_K": ((80, "F16"), (82, "F16")),
    "Q3_K": ((108, "F16"),),
    "Q6_K": ((208, "F16"),),
    "Q8_K": ((0, "F32"),),
    "TQ1_0": ((52, "F16"),),
    "TQ2_0": ((64, "F16"),),
    "IQ1_M": ((48, "SPREAD"),),
    "MXFP4": ((0, "E8M0"),),
    "NVFP4": (),  # E4M3 without a sign, in which ggml reads NaN as 0
}
"""The scales and offsets in a block of every type that the package `gguf` dequantizes."""

USUAL: Mapping[str, Mapping[str, int]] = {
    "F32": {"F32": 0x7F7FFFFF, "F16": 0x7BFF, "BF16": 0x7F7F, "E8M0": 252, "SPREAD": 0x7BFF},
    "BF16": {"F32": 0x7F7F7FFF, "F16": 0x7BFF, "BF16": 0x7F7F, "E8M0": 252, "SPREAD": 0x7BFF},
    # 65504, and 16 for scales: no block multiplies its scale by more than 4,096
    "F16": {"F32": 0x477FE000, "F16": 0x4BFF, "BF16": 0x477F, "E8M0": 139, "SPREAD": 0x4BFF},
}
"""By the dtype to which weights are dequantized: the largest bits, without the sign, of a number
of each type that certainly leaves them finite."""

PIECE = 1 << 25
"""Bytes that are looked at together."""
JUDGED = 4096
"""Unusual blocks that are dequantized together."""


def check_gguf_finite(
    path: Path,
    tensors: Mapping[str, Any],
    *,
    dtype: str,
    progress: Callable[[float], None],
) -> None:
    """Raise UserError that names the tensors of a GGUF file which hold a NaN or an infinity.

    `tensors` is the table of `GgufSource`; infinite is also what overflows in `dtype` ("BF16").
    """
    total, done = sum(entry["length"] for entry in tensors.values()) or 1, 0
    found: list[str] = []
    try:
        data = np.memmap(path, np.uint8, mode="r")
        with ThreadPoolExecutor(THREADS) as pool:
            judged = pool.map(lambda entry: _wrong(data, entry, dtype), tensors.values())
            for (name, entry), wrong in zip(tensors.items(), judged, strict=True):
                if wrong is not None:
                    found.append(f"{name} ({entry['stored']!r}, {entry['type']}) has {wrong}")
                done += entry["length"]
                progress(done / total)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    refuse(found)


def _wrong(data: NDArray[np.uint8], entry: Mapping[str, Any], dtype: str) -> str | None:
    """The first entry of a stored tensor that is not finite, in words, with its place there."""
    stored = GGMLQuantizationType[entry["type"]]
    size, width = GGML_QUANT_SIZES[stored]
    each = max(1, PIECE // width)
    for first in range(0, entry["length"] // width, each):
        count = min(each, entry["length"] // width - first)
        start = entry["start"] + first * width
        blocks = data[start : start + count * width].reshape(count, width)
        for chosen in _split(unusual(blocks, entry["type"], dtype)):
            rows = dequantize(np.ascontiguousarray(blocks[chosen]).reshape(-1), stored)
            values = torch.from_numpy(np.array(rows)).reshape(len(chosen), size)
            wrong = (~values.to(torch_dtype(dtype)).isfinite()).nonzero()
            if len(wrong):
                block, inside = wrong[0].tolist()
                at = (first + int(chosen[block])) * size + inside
                place = ", ".join(str(int(i)) for i in np.unravel_index(at, tuple(entry["rows"])))
                kind = "NaN" if values[block, inside].isnan() else "infinity"
                return f"{kind} at [{place}]"
    return None


def unusual(blocks: NDArray[np.uint8], kind: str, dtype: str) -> NDArray[np.intp]:
    """Numbers of those blocks, uint8 [count, bytes], whose scales need a second look."""
    found: set[int] = set()
    for offset, form in FIELDS[kind]:
        largest = USUAL[dtype][form]
        bits = _bits(blocks, offset, form)
        if len(bits) and int(bits.max()) > largest:
            found.update(np.flatnonzero(bits > largest).tolist())
    return np.array(sorted(found), dtype=np.intp)


def _bits(blocks: NDArray[np.uint8], offset: int, form: str) -> NDArray[Any]:
    """One field of every block as an unsigned integer without its sign."""
    if form == "E8M0":
        return blocks[:, offset]
    if form == "SPREAD":  # four bits in each of four words
        words = np.ascontiguousarray(blocks[:, offset : offset + 8]).view("<u2") & 0xF000
        spread = words[:, 3] | words[:, 2] >> 4 | words[:, 1] >> 8 | words[:, 0] >> 12
        return spread & 0x7FFF
    code, sign = ("<u4", 0x7FFFFFFF) if form == "F32" else ("<u2", 0x7FFF)
    fields = np.dtype(
        {"names": ["x"], "formats": [code], "offsets": [offset], "itemsize": blocks.shape[1]}
    )
    return blocks.reshape(-1).view(fields)["x"] & sign


def _split(chosen: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    for first in range(0, len(chosen), JUDGED):
        yield chosen[first : first + JUDGED]
