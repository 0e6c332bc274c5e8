"""Errors of rounded weights on a CPU: one compiled pass in place of a dozen over fresh memory."""

from __future__ import annotations

import numpy as np

from stages.compress.grid_kernels import Floats, Rounding32, rounded
from stages.compute.compiled import compiled


@compiled()
def errors_of_rows(
    weight: Floats,
    s: Floats,
    scale: Floats,
    zero: Floats,
    width: int,
    codes: Rounding32,
    integers: bool,
    out: Floats,
) -> None:
    """out = w - Q(w s) / s for rows w [r, in] and factors s [in], Q by given scales.

    scale, zero [r, groups]: effective scales and zero points, each for `width` columns. `integers`:
    codes are the whole numbers from codes.low to codes.high. The operations, and their roundings,
    are those of `stages.compress.solvers.rtn`.
    """
    rows, columns = weight.shape
    for i in range(rows):
        for g in range(scale.shape[1]):
            first, stop = g * width, min(columns, (g + 1) * width)
            own, factors, wrong = weight[i, first:stop], s[first:stop], out[i, first:stop]
            unit, offset = scale[i, g], zero[i, g]
            if integers:
                for j in range(own.shape[0]):
                    x = own[j] * factors[j] / unit + offset
                    code = np.float32(np.rint(min(max(x, codes.low), codes.high)))
                    wrong[j] = own[j] - (code - offset) * unit / factors[j]
            else:
                for j in range(own.shape[0]):
                    code = rounded(own[j] * factors[j] / unit, codes)
                    wrong[j] = own[j] - code * unit / factors[j]
