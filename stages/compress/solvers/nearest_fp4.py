"""Round to the nearest E2M1 (FP4) code: compiled on a CPU, tensor arithmetic elsewhere.

Ties go to the even code; what rounds to zero keeps its sign, -0 itself does not. So does
compressed-tensors, and tests compare with it.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.compute.compiled import compiled

MIDPOINTS = ((0.25, False), (0.75, True), (1.25, False), (1.75, True), (2.5, False), (3.5, True))
"""Midpoints between neighbouring magnitudes, and whether each belongs to the upper one; then 5."""


def nearest_fp4(x: Tensor) -> Tensor:
    """uint8, the shape of `x`: the code of every entry, 0 to 15; `x` is float32."""
    if not x.is_cpu:
        return _by_torch(x)
    out = np.empty(x.numel(), dtype=np.uint8)
    _encode(x.detach().contiguous().view(-1).numpy(), out)
    return torch.from_numpy(out).view(x.shape)


def _by_torch(x: Tensor) -> Tensor:
    size = x.abs()
    code = (size > 5.0).to(torch.uint8)
    for middle, upper in MIDPOINTS:
        code += (size >= middle) if upper else (size > middle)
    return code + (x < 0).to(torch.uint8) * 8


@compiled()
def _encode(values: NDArray[np.float32], codes: NDArray[np.uint8]) -> None:
    for j in range(codes.shape[0]):
        x = np.float32(values[j])
        size = np.float32(abs(x))
        low = np.uint8(size > np.float32(0.25)) + np.uint8(size >= np.float32(0.75))
        middle = np.uint8(size > np.float32(1.25)) + np.uint8(size >= np.float32(1.75))
        high = np.uint8(size > np.float32(2.5)) + np.uint8(size >= np.float32(3.5))
        top = np.uint8(size > np.float32(5.0))
        sign = np.uint8(x < np.float32(0.0)) << np.uint8(3)
        codes[j] = np.uint8(low + middle + high + top + sign)
