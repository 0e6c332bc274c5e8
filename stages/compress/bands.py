"""Weights that are too large to be in memory as a whole, rounded some rows at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from stages.compress.solvers.direct import Direct, Take, direct, magnitudes
from stages.compress.solvers.direct_kernels import Bits
from stages.schemes.protocols import WeightFormat, spans
from stages.weights.matrix import Matrix

Put = Callable[[int, Tensor], None]


def direct_in_bands(
    matrix: Matrix, args: WeightFormat, layout: str, put: Put, take: Take
) -> Direct | None:
    """What :func:`direct` makes of the whole weight, to the bit; its codes have no memory.

    `put(first, codes)` is given the codes of some rows, good until it returns.
    """
    one = args.strategy == "tensor"
    known = _largest_of_all(matrix, args) if one else None
    parts: list[Direct] = []
    for start, stop in matrix.bands(1 if one else spans(args, *matrix.shape)[0]):
        made = direct(matrix.read(start, stop), args, layout, take, known)
        if made is None:
            return None
        put(start, made.codes)
        parts.append(_without_codes(made))
    columns = torch.stack([part.columns for part in parts]).sum(dim=0) % 2**32
    return Direct(
        codes=torch.cat([part.codes for part in parts]),
        scale=parts[0].scale if one else torch.cat([part.scale for part in parts]),
        rows=torch.cat([part.rows for part in parts]),
        columns=columns,
        errors=np.concatenate([part.errors for part in parts]),
    )


def _largest_of_all(matrix: Matrix, args: WeightFormat) -> Bits:
    found: Bits = np.max([magnitudes(matrix.read(*band), args) for band in matrix.bands()], axis=0)
    return found


def _without_codes(made: Direct) -> Direct:
    return Direct(
        codes=made.codes.to("meta"),
        scale=made.scale,
        rows=made.rows,
        columns=made.columns,
        errors=made.errors,
    )
