"""Codes and scales of GGUF tensors, for the block formats that compressed-tensors has a grid for.

Q4_0, Q5_0 and Q8_0 are symmetric integers in groups of 32 with float16 scales, of which half are
negative in Q4_0 (the entry of the largest magnitude is code -8). MXFP4 has an E8M0 exponent for 32
E2M1 codes, NVFP4 four unsigned E4M3 scales for 64. The others (K-quants, I-quants, Q4_1, Q5_1, TQ)
have scales of scales or minima, which no grid here says exactly: they are read dense only.
Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.quantized.grids import E2M1, MXFP4, NVFP4
from stages.schemes.quant_args import QArgs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from stages.quantized.stored_weight import Stored

    Blocks = NDArray[np.uint8]

VALUES = (*E2M1, 0.0, *(-value for value in E2M1[1:]))
"""E2M1 by code; code 8, minus zero, is 0 in GGUF."""
UNSIGNED_NAN, BEYOND = 0x7F, 0xFF
LARGEST_E8M0 = 254


@dataclass(frozen=True, kw_only=True, slots=True)
class BlockFormat:
    """A block format: columns and bytes of a block, its grid, and what splits blocks.

    `split`: uint8 [rows, blocks, bytes] -> codes [rows, columns] and scales [rows, groups].
    """

    columns: int
    bytes: int
    grid: QArgs
    split: Callable[[Blocks], tuple[NDArray[np.generic], NDArray[np.generic]]]


def stored_blocks(kind: str, rows: Blocks) -> Stored:
    """Codes and scales of a tensor's bytes, uint8 [rows, bytes of a row], of a type in FORMATS.

    Raises ValueError for scales that have no equal in compressed-tensors.
    """
    import torch

    from stages.quantized.stored_weight import Stored

    form = FORMATS[kind]
    blocks = rows.reshape(len(rows), -1, form.bytes)
    codes, scale = (torch.from_numpy(part) for part in form.split(blocks))
    if form.grid.scale_dtype == "float8_e4m3fn":
        scale = scale.view(torch.float8_e4m3fn)
        return Stored(grid=form.grid, codes=codes, scale=scale, global_scale=torch.ones(1))
    return Stored(grid=form.grid, codes=codes, scale=scale)


def _nibbles(packed: Blocks) -> Blocks:
    """Codes of bytes along the last axis: all low nibbles first, then the high ones."""
    import numpy as np

    return np.concatenate((packed & 0x0F, packed >> 4), axis=-1)


def _scale(blocks: Blocks) -> NDArray[np.float16]:
    import numpy as np

    return np.ascontiguousarray(blocks[..., :2]).view("<f2").astype(np.float16)[..., 0]


def _q4_0(blocks: Blocks) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    import numpy as np

    codes = _nibbles(blocks[..., 2:]).astype(np.int8) - np.int8(8)
    return codes.reshape(len(blocks), -1), _scale(blocks)


def _q5_0(blocks: Blocks) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    import numpy as np

    high = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    codes = (_nibbles(blocks[..., 6:]) | high << 4).astype(np.int8) - np.int8(16)
    return codes.reshape(len(blocks), -1), _scale(blocks)


def _q8_0(blocks: Blocks) -> tuple[NDArray[np.int8], NDArray[np.float16]]:
    import numpy as np

    codes = np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
    return codes.reshape(len(blocks), -1), _scale(blocks)


def _mxfp4(blocks: Blocks) -> tuple[NDArray[np.float32], Blocks]:
    import numpy as np

    exponents = np.ascontiguousarray(blocks[..., 0])
    if (exponents > LARGEST_E8M0).any():
        raise ValueError("a block scale of 2^128, which is NaN in the MX specification")
    codes = np.array(VALUES, np.float32)[_nibbles(blocks[..., 1:])]
    return codes.reshape(len(blocks), -1), exponents


def _nvfp4(blocks: Blocks) -> tuple[NDArray[np.float32], Blocks]:
    import numpy as np

    scales = np.ascontiguousarray(blocks[..., :4]).reshape(len(blocks), -1)
    if (scales == BEYOND).any():
        raise ValueError("a block scale of 480, which is NaN in E4M3")
    scales = np.where(scales == UNSIGNED_NAN, 0, scales & 0x7F).astype(np.uint8)
    packed = blocks[..., 4:].reshape(*blocks.shape[:2], 4, 8)
    codes = np.array(VALUES, np.float32)[_nibbles(packed)]
    return codes.reshape(len(blocks), -1), scales


def _integers(bits: int) -> QArgs:
    return QArgs(num_bits=bits, strategy="group", group_size=32)


FORMATS: Mapping[str, BlockFormat] = {
    "Q4_0": BlockFormat(columns=32, bytes=18, grid=_integers(4), split=_q4_0),
    "Q5_0": BlockFormat(columns=32, bytes=22, grid=_integers(5), split=_q5_0),
    "Q8_0": BlockFormat(columns=32, bytes=34, grid=_integers(8), split=_q8_0),
    "MXFP4": BlockFormat(
        columns=32,
        bytes=17,
        grid=MXFP4,
        split=_mxfp4,
    ),
    "NVFP4": BlockFormat(
        columns=64,
        bytes=36,
        grid=NVFP4,
        split=_nvfp4,
    ),
}
