"""Checksum of the codes that a solver chose: of the weight that readers will make of them.

It is computed from the codes before they are packed, so that verification, which computes it from
what is stored, also finds what packing may have done to them.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.formats.checksums import add_codes, as_tensors, unpacked_dtype
from stages.formats.codes import BOTH, decode
from stages.schemes.protocols import ModuleFormat, spans

WORDS = {2: torch.int16, 4: torch.int32}
AT_ONCE = 1 << 24
"""Elements of a weight whose bits are summed at once where no compiled loop is."""


def code_checksum(
    codes: Tensor,
    *,
    scale: Tensor,
    zero_point: Tensor | None,
    global_scale: Tensor | None,
    scheme: ModuleFormat,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """`stages.formats.checksums.bit_sums` of the weight that these codes [out, in] mean.

    Its dtype is the one to which they are unpacked in a model of `dtype`. The parameters are those
    of :func:`stages.formats.pack.pack`, on one device; the sums are on the CPU.
    """
    args, wanted = scheme.weights, unpacked_dtype(scheme, dtype)
    if args is None:
        raise ValueError("a module without a weight format has no codes")
    rows, columns = codes.shape
    height, width = spans(args, rows, columns)
    effective = scale.float() if global_scale is None else scale.float() / global_scale
    effective = effective.reshape(-(-rows // height), -1)
    zero = torch.zeros_like(effective)
    if zero_point is not None:
        zero = zero_point.float().reshape(effective.shape)
    if codes.is_cpu and wanted == torch.bfloat16:
        row_sums, column_sums = np.zeros(rows, dtype=np.uint32), np.zeros(columns, dtype=np.uint32)
        params = (effective.contiguous().numpy(), zero.contiguous().numpy())
        read = codes.contiguous().view(torch.uint8).numpy()
        add_codes(read, _values(codes.dtype), *params, (0, height, width), row_sums, column_sums)
        return as_tensors(row_sums, column_sums)
    return _by_torch(codes, effective, zero, (height, width), wanted)


def _values(dtype: torch.dtype) -> NDArray[np.float32]:
    """The number that each of the 256 bytes stands for as a code of `dtype`."""
    if dtype == torch.uint8:
        return np.tile(BOTH, 16)
    values: NDArray[np.float32] = decode(torch.arange(256, dtype=torch.uint8).view(dtype)).numpy()
    return values


def _by_torch(
    codes: Tensor, scale: Tensor, zero: Tensor, shared: tuple[int, int], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The same by tensor arithmetic, on any device and for any dtype, some rows at a time."""
    (rows, columns), (height, width) = codes.shape, shared
    column = torch.arange(columns, device=codes.device) // width
    totals, lines = torch.zeros(columns, dtype=torch.int64, device=codes.device), []
    step = max(1, AT_ONCE // max(1, columns))
    for start in range(0, rows, step):
        part = codes[start : start + step]
        row = torch.arange(start, start + len(part), device=codes.device) // height
        scales, zeros = scale[row][:, column], zero[row][:, column]
        weight = ((decode(part) - zeros) * scales).to(dtype)
        size = weight.element_size()
        bits = torch.where(weight == 0, 0, weight.view(WORDS[size]).long() % 2 ** (8 * size))
        lines.append(bits.sum(dim=1))
        totals += bits.sum(dim=0)
    sums = torch.cat(lines) if lines else totals[:0]
    return {"rows": (sums % 2**32).cpu(), "columns": (totals % 2**32).cpu()}
