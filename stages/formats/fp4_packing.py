"""Pack FP4 (E2M1) codes two in a byte (OCP MX specification, section 5.3.3), and unpack them.

compressed-tensors defines the bytes, and tests compare with it. Its own packing searches the whole
weight for each of the eight magnitudes, twice.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.compute.compiled import compiled
from stages.schemes.protocols import WeightFormat

FORMATS = ("nvfp4-pack-quantized", "mxfp4-pack-quantized")
VALUES = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=np.float32)
BOTH = np.concatenate([VALUES, -VALUES])
"""Values of the 16 codes: the sign is the highest bit."""
PAIRS = np.stack([np.tile(BOTH, 16), np.repeat(BOTH, 16)], axis=1)
"""Values of the two codes of each byte: the first column is in the low bits."""

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


def fits_fp4(weight: Tensor, args: WeightFormat) -> bool:
    """Whether :func:`fp4_of` can encode a weight: E2M1 in whole groups, on the CPU."""
    small = args.type == "float" and args.num_bits == 4 and args.group_size is not None
    return small and weight.is_cpu and weight.shape[-1] % (2 * (args.group_size or 1)) == 0


def fp4_of(weight: Tensor, scale: Tensor, global_scale: Tensor | None) -> Tensor:
    """uint8 [out, in / 2]: the nearest code of every entry, even columns in the low bits.

    weight: [out, in] of any floating dtype; scale: [out, groups], divided by global_scale [1] if
    there is one. Ties go to the even code; what rounds to zero keeps its sign, -0 itself does not.
    """
    effective = scale if global_scale is None else scale / global_scale
    out = np.empty((weight.shape[0], weight.shape[1] // 2), dtype=np.uint8)
    _encode(
        weight.detach().float().contiguous().numpy(),
        effective.detach().float().contiguous().numpy(),
        out,
    )
    return torch.from_numpy(out)


def fp4_values(packed: Tensor) -> Tensor:
    """float32 [out, in]: the values of packed bytes [out, in / 2], without scales."""
    pairs = PAIRS[packed.contiguous().numpy()]
    return torch.from_numpy(pairs.reshape(packed.shape[0], -1))


@compiled()
def _encode(weight: Floats, scale: Floats, out: Bytes) -> None:
    columns = weight.shape[1]
    width = columns // scale.shape[1]
    codes = np.empty(columns, dtype=np.uint8)
    for i in range(weight.shape[0]):
        for g in range(scale.shape[1]):
            part = slice(g * width, (g + 1) * width)
            _nearest(weight[i, part], scale[i, g], codes[part])
        _in_pairs(codes, out[i])


@compiled()
def _nearest(weight: Floats, scale: np.float32, codes: Bytes) -> None:
    for j in range(codes.shape[0]):
        x = np.float32(weight[j] / scale)
        size = np.float32(abs(x))
        low = np.uint8(size > np.float32(0.25)) + np.uint8(size >= np.float32(0.75))
        middle = np.uint8(size > np.float32(1.25)) + np.uint8(size >= np.float32(1.75))
        high = np.uint8(size > np.float32(2.5)) + np.uint8(size >= np.float32(3.5))
        top = np.uint8(size > np.float32(5.0))
        sign = np.uint8(x < np.float32(0.0)) << np.uint8(3)
        codes[j] = np.uint8(low + middle + high + top + sign)


@compiled()
def _in_pairs(codes: Bytes, out: Bytes) -> None:
    for j in range(out.shape[0]):
        out[j] = np.uint8(codes[2 * j] | np.uint8(codes[2 * j + 1] << np.uint8(4)))
