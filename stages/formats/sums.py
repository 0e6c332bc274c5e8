"""Sums over the bits of a weight: equal sums by row and by column, equal weight.

They are exact integers, so it does not matter who added in which order: what a solver chose and
what a reader unpacks must agree to the bit. -0.0 counts as 0.0: a format may keep no sign of zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.compiled import compiled

Sums = NDArray[np.uint32]
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def bit_sums(weight: Tensor) -> dict[str, Tensor]:
    """Sums of the bits of a weight [out, in] on the CPU, modulo 2**32.

    Returns `rows` int64 [out] and `columns` int64 [in].
    """
    weight = weight.detach().contiguous()
    bits = weight.view(torch.uint8).numpy().view(WORDS[weight.element_size()])
    negative_zero = 1 << (8 * weight.element_size() - 1) if weight.is_floating_point() else 0
    rows = np.zeros(bits.shape[0], dtype=np.uint32)
    columns = np.zeros(bits.shape[1], dtype=np.uint32)
    _add_bits(bits, np.uint32(negative_zero), rows, columns)
    return as_tensors(rows, columns)


def as_tensors(rows: Sums, columns: Sums) -> dict[str, Tensor]:
    """Sums as safetensors files keep them."""
    return {
        "rows": torch.from_numpy(rows.astype(np.int64)),
        "columns": torch.from_numpy(columns.astype(np.int64)),
    }


@compiled()
def _add_bits(bits: Any, negative_zero: np.uint32, rows: Sums, columns: Sums) -> None:
    for i in range(bits.shape[0]):
        line, total = bits[i], np.uint32(0)
        for j in range(columns.shape[0]):
            word = np.uint32(line[j])
            word = np.uint32(0) if word == negative_zero else word
            total = np.uint32(total + word)
            columns[j] = np.uint32(columns[j] + word)
        rows[i] = total


@compiled()
def add_codes(
    codes: NDArray[np.uint8],
    table: NDArray[np.float32],
    scale: NDArray[np.float32],
    zero: NDArray[np.float32],
    place: tuple[int, int, int],
    rows: Sums,
    columns: Sums,
) -> None:
    """Add to `rows` and `columns` the bits of the bfloat16 weight (table[code] - zero) * scale.

    codes [r, in] as bytes; table [256]: their values; `place`: the number of the first row in the
    weight, and how many rows and columns share an entry of scale and zero [., .].
    """
    first, height, width = place
    count = codes.shape[1]
    held = np.empty(count, dtype=np.float32)
    for i in range(codes.shape[0]):
        own, base = scale[(first + i) // height], zero[(first + i) // height]
        for g in range(own.shape[0]):
            part = slice(g * width, min(count, (g + 1) * width))
            _scaled(codes[i, part], table, own[g], base[g], held[part])
        rows[i] = _add_line(held, columns)


@compiled()
def _scaled(
    codes: NDArray[np.uint8],
    table: NDArray[np.float32],
    scale: np.float32,
    zero: np.float32,
    out: NDArray[np.float32],
) -> None:
    for j in range(out.shape[0]):
        out[j] = np.float32(np.float32(table[codes[j]] - zero) * scale)


@compiled()
def _add_line(line: NDArray[np.float32], columns: Sums) -> np.uint32:
    total = np.uint32(0)
    for j in range(columns.shape[0]):
        bits = np.float32(line[j]).view(np.uint32)
        odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
        word = np.uint32(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
        word = np.uint32(0) if word == np.uint32(0x8000) else word
        total = np.uint32(total + word)
        columns[j] = np.uint32(columns[j] + word)
    return total
