"""Checksums of compressed weights from codes and scales, where there is nothing else to them.

Compiled loops read all of a weight; plain arithmetic reads some of its rows beside them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.formats.codes import Codes, codes_of
from stages.formats.fp4 import FORMATS as FP4
from stages.formats.plain import LAYOUTS, STRATEGIES, words_in
from stages.formats.protocols import ModuleFormat
from stages.formats.sharing import WeightFormat, spans
from stages.formats.sums import add_codes, as_tensors
from stages.formats.words import unpack_rows
from stages.weights.matrix import Matrix

SAMPLED = 8
"""So many rows at the top and at the bottom of a weight are read both ways."""


def stored_sums(
    matrix: Matrix, others: Mapping[str, Tensor], scheme: ModuleFormat, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """`bit_sums` of the weight that a module's main tensor and `others` (by local name) stand for.

    None where that is more than codes, zero points and scales, or `dtype` is not bfloat16. Raises
    KeyError or ValueError where the tensors do not fit the format, or where the two ways of reading
    them disagree.
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
        own = row_sums[first : first + len(piece)]
        add_codes(piece, values, scale, zero, (first, height, width), own, column_sums)
    for start in sorted({0, max(0, rows - SAMPLED)}):
        found = _read(codes, (scale, zero), (start, min(rows, start + SAMPLED)), (height, width))
        if not np.array_equal(found, row_sums[start : start + len(found)]):
            raise ValueError("it is read in two ways, to different weights")
    return as_tensors(row_sums, column_sums)


def _effective(others: Mapping[str, Tensor], args: WeightFormat, layout: str) -> Tensor | None:
    """What codes are multiplied with, in float32; None where that is not all that is done."""
    scale = others["weight_scale"]
    if not scale.is_cpu or "weight_g_idx" in others:
        return None
    if layout in LAYOUTS and args.strategy in STRATEGIES and scale.dtype == torch.bfloat16:
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
    """The zero points, in the shape of the scales; packed ones share words over rows."""
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


Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def _read(
    codes: Codes, params: Pair, part: tuple[int, int], shared: tuple[int, int]
) -> NDArray[np.uint32]:
    """The sums of some rows, from values that are all there."""
    (start, stop), (height, width) = part, shared
    rows, columns = np.arange(start, stop) // height, np.arange(codes.shape[1]) // width
    scale, zero = (values[rows][:, columns] for values in params)
    exact = (codes.values[codes.rows(start, stop)] - zero) * scale
    weight = torch.from_numpy(exact).to(torch.bfloat16)
    bits = torch.where(weight == 0, 0, weight.view(torch.int16).long() & 0xFFFF)
    sums: NDArray[np.uint32] = bits.sum(dim=1).numpy().astype(np.uint32)
    return sums
