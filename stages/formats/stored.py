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
from stages.formats.plain import LAYOUTS, STRATEGIES
from stages.formats.protocols import ModuleFormat
from stages.formats.sharing import spans
from stages.formats.sums import add_codes, as_tensors
from stages.weights.matrix import Matrix

SAMPLED = 8
"""So many rows at the top and at the bottom of a weight are read both ways."""


def stored_sums(
    matrix: Matrix, others: Mapping[str, Tensor], scheme: ModuleFormat, dtype: torch.dtype
) -> dict[str, Tensor] | None:
    """`bit_sums` of the weight that a module's main tensor and `others` (by local name) stand for.

    None where that is more than codes times a bfloat16 scale, or the model is of another `dtype`.
    Raises KeyError or ValueError where the tensors do not fit the format, or where the two ways of
    reading them disagree.
    """
    args = scheme.weights
    if args is None or dtype != torch.bfloat16 or not _plain(others, scheme):
        return None
    codes = codes_of(matrix, others, args.num_bits)
    rows, columns = codes.shape
    height, width = spans(args, rows, columns)
    scale = others["weight_scale"].float().reshape(-(-rows // height), -1).numpy()
    if scale.shape[1] != -(-columns // width):
        raise ValueError(f"weight_scale has the shape {list(others['weight_scale'].shape)}")
    row_sums, column_sums = np.zeros(rows, dtype=np.uint32), np.zeros(columns, dtype=np.uint32)
    values = codes.values
    for first, piece in codes.pieces():
        own = row_sums[first : first + len(piece)]
        add_codes(piece, values, scale, (first, height, width), own, column_sums)
    for start in sorted({0, max(0, rows - SAMPLED)}):
        found = _read(codes, scale, (start, min(rows, start + SAMPLED)), height, width)
        if not np.array_equal(found, row_sums[start : start + len(found)]):
            raise ValueError("it is read in two ways, to different weights")
    return as_tensors(row_sums, column_sums)


def _plain(others: Mapping[str, Tensor], scheme: ModuleFormat) -> bool:
    known = scheme.weights is not None and scheme.weights.strategy in STRATEGIES
    alone = "weight_zero_point" not in others and "weight_g_idx" not in others
    scale = others["weight_scale"]
    here = scale.dtype == torch.bfloat16 and scale.is_cpu
    return known and alone and here and str(scheme.format) in LAYOUTS


def _read(
    codes: Codes, scale: NDArray[np.float32], part: tuple[int, int], height: int, width: int
) -> NDArray[np.uint32]:
    """The sums of some rows, from values that are all there."""
    start, stop = part
    shared = scale[np.arange(start, stop) // height][:, np.arange(codes.shape[1]) // width]
    weight = torch.from_numpy(codes.values[codes.rows(start, stop)] * shared).to(torch.bfloat16)
    bits = torch.where(weight == 0, 0, weight.view(torch.int16).long() & 0xFFFF)
    sums: NDArray[np.uint32] = bits.sum(dim=1).numpy().astype(np.uint32)
    return sums
