"""Row and column checksums of a dequantized weight, from its bits or from codes and scales.

A solver's result and what a reader unpacks must agree to the bit. Checksums are exact integers, so
that the order of summation does not matter. -0.0 counts as 0.0: a format may drop the sign of zero.

Compiled loops sum stored codes; plain tensor arithmetic checks them on some rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.compute.compiled import compiled
from stages.formats.code_reader import Codes, codes_of
from stages.formats.fp4_packing import FORMATS as FP4
from stages.formats.int_packing import unpack_rows
from stages.schemes.layouts import LAYOUTS, STRATEGIES, words_in
from stages.schemes.protocols import ModuleFormat, WeightFormat, spans
from stages.weights.row_bands import Matrix

Sums = NDArray[np.uint32]
WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}
SAMPLED = 8
"""Number of rows at the top and at the bottom of a weight that are checked by tensor arithmetic."""
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


SCALES = (torch.bfloat16, torch.float16)
"""Dtypes of plain scales in a bfloat16 model; float16 ones are another writer's (modifier keep)."""


def bit_sums(weight: Tensor) -> dict[str, Tensor]:
    """Sums of the bit patterns of a weight [out, in] on the CPU, modulo 2**32.

    Returns `rows` int64 [out] and `columns` int64 [in].
    """
    weight = weight.detach().contiguous()
    bits = weight.view(torch.uint8).numpy().view(WORDS[weight.element_size()])
    negative_zero = 1 << (8 * weight.element_size() - 1) if weight.is_floating_point() else 0
    rows = np.zeros(bits.shape[0], dtype=np.uint32)
    columns = np.zeros(bits.shape[1], dtype=np.uint32)
    _add_bits(bits, np.uint32(negative_zero), rows, columns)
    return as_tensors(rows, columns)


def checksum(weight: Tensor, scheme: ModuleFormat, dtype: torch.dtype) -> dict[str, Tensor]:
    """`bit_sums` of an unpacked weight [out, in], in the dtype to which readers unpack it."""
    return bit_sums(weight.to(unpacked_dtype(scheme, dtype)))


def unpacked_dtype(scheme: ModuleFormat, dtype: torch.dtype) -> torch.dtype:
    """The dtype to which compressed-tensors unpacks; FP4 and MX formats always give bfloat16."""
    return dtype if str(scheme.format) in LAYOUTS else torch.bfloat16


def stored_sums(
    matrix: Matrix, others: Mapping[str, Tensor], scheme: ModuleFormat, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """`bit_sums` of a stored weight, from its codes (`matrix`) and its `others` by local name.

    None if there is more to it than codes, zero points and scales, or if `dtype` is not bfloat16.
    Raises KeyError or ValueError if the tensors do not fit the format, or if the two ways of
    reading them disagree.
    """
    args, layout = scheme.weights, str(scheme.format)
    if args is None or dtype != torch.bfloat16:
        return None
    effective = _effective(others, args, layout)
    if effective is None:
        return None
    codes = codes_of(matrix, others, args, layout)
    rows, columns = codes.shape
    height, width = spans(args, rows, columns)
    scale = effective.reshape(-(-rows // height), -1).numpy()
    if scale.shape[1] != -(-columns // width):
        raise ValueError(f"weight_scale has the shape {list(others['weight_scale'].shape)}")
    zero = _zeros(others, args.num_bits, scale)
    row_sums, column_sums = np.zeros(rows, dtype=np.uint32), np.zeros(columns, dtype=np.uint32)
    values = codes.values
    for first, piece in codes.pieces():
        part = row_sums[first : first + len(piece)]
        add_codes(piece, values, scale, zero, (first, height, width), part, column_sums)
    for start in sorted({0, max(0, rows - SAMPLED)}):
        found = _read(codes, (scale, zero), (start, min(rows, start + SAMPLED)), (height, width))
        if not np.array_equal(found, row_sums[start : start + len(found)]):
            raise ValueError("it is read in two ways, to different weights")
    return as_tensors(row_sums, column_sums)


def as_tensors(rows: Sums, columns: Sums) -> dict[str, Tensor]:
    """Checksums as tensors, by the names that safetensors files give them."""
    return {
        "rows": torch.from_numpy(rows.astype(np.int64)),
        "columns": torch.from_numpy(columns.astype(np.int64)),
    }


def _effective(others: Mapping[str, Tensor], args: WeightFormat, layout: str) -> Tensor | None:
    """The float32 scales that codes are multiplied with; None if unpacking does more than that."""
    scale = others["weight_scale"]
    if not scale.is_cpu or "weight_g_idx" in others:
        return None
    if layout in LAYOUTS and args.strategy in STRATEGIES and scale.dtype in SCALES:
        return scale.float()
    if layout in FP4 and "weight_zero_point" in others:
        return None
    if layout in FP4 and scale.dtype == torch.float8_e4m3fn:
        return scale.float() / others["weight_global_scale"]
    if layout in FP4 and scale.dtype == torch.uint8:
        return torch.exp2(scale.float() - 127)
    return None


def _zeros(
    others: Mapping[str, Tensor], num_bits: int, scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Zero points as float32 in the shape of the scales; packed ones share words across rows."""
    stored = others.get("weight_zero_point")
    if stored is None:
        return np.zeros_like(scale)
    if stored.dtype != torch.int32:
        return stored.float().reshape(scale.shape).numpy()
    words = stored.t().contiguous().numpy().view(np.uint32)
    if words.shape != (scale.shape[1], words_in(scale.shape[0], num_bits)):
        raise ValueError(f"weight_zero_point has the shape {list(stored.shape)}")
    codes = np.empty((scale.shape[1], scale.shape[0]), dtype=np.uint8)
    unpack_rows(words, num_bits, codes)
    return np.ascontiguousarray(codes.T.astype(np.float32) - np.float32(2 ** (num_bits - 1)))


def _read(
    codes: Codes, params: Pair, part: tuple[int, int], shared: tuple[int, int]
) -> NDArray[np.uint32]:
    """Row sums of rows `part`, by tensor arithmetic instead of compiled loops."""
    (start, stop), (height, width) = part, shared
    rows, columns = np.arange(start, stop) // height, np.arange(codes.shape[1]) // width
    scale, zero = (values[rows][:, columns] for values in params)
    exact = (codes.values[codes.rows(start, stop)] - zero) * scale
    weight = torch.from_numpy(exact).to(torch.bfloat16)
    bits = torch.where(weight == 0, 0, weight.view(torch.int16).long() & 0xFFFF)
    sums: NDArray[np.uint32] = bits.sum(dim=1).numpy().astype(np.uint32)
    return sums


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
    """Add the bit patterns of the bfloat16 weight (table[code] - zero) * scale to the sums.

    codes [r, in] as bytes; table [256]: their values; `place`: index of the first row in the
    weight, and number of rows and of columns that share an entry of scale and zero [., .].
    """
    first, height, width = place
    count = codes.shape[1]
    held = np.empty(count, dtype=np.float32)
    for i in range(codes.shape[0]):
        scales, zeros = scale[(first + i) // height], zero[(first + i) // height]
        for g in range(scales.shape[0]):
            part = slice(g * width, min(count, (g + 1) * width))
            _scaled(codes[i, part], table, scales[g], zeros[g], held[part])
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
