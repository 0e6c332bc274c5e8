"""Round to nearest under min-max scales, from bfloat16 to codes in two passes over the weight.

What `rtn` gives under `minmax`, packed, to the bit, for the formats without zero points and
global scales; see `stages.compress.modifiers.rtn_route.is_fused`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.compress.observers.absmax_scale import scales_of
from stages.compress.solvers import rtn_fused_kernels as kernels
from stages.compute.row_tiles import row_tiles
from stages.schemes.layouts import PACKED, words_in
from stages.schemes.protocols import WeightFormat, scale_shape, spans

ELEMENTS = 1 << 22  # of a tile: each one has to ask for the interpreter, whoever holds it
Take = Callable[[int], NDArray[np.uint8]]
INFINITE = 0x7F80  # bits of bfloat16


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """The stored form of a weight [out, in] and what is known of it.

    codes: float8_e4m3fn or int8 [out, in], or int32 words [out, words]. scale: bfloat16, as
    `Quantized.scale`. rows [out], columns [in]: int64 sums of the bits of the dequantized weight,
    modulo 2**32. errors: float64 [out, 2], the squared norms of difference and weight by row.
    """

    codes: Tensor
    scale: Tensor
    rows: Tensor
    columns: Tensor
    errors: NDArray[np.float64]

    @property
    def relative_error(self) -> float:
        """Squared norm of the difference over that of the weight; 0 for a weight of zeros."""
        difference, norm = (float(total) for total in self.errors.sum(axis=0))
        return difference / norm if norm > 0 else 0.0


def direct(
    weight: Tensor,
    args: WeightFormat,
    layout: str,
    take: Take | None = None,
    known: kernels.Bits | None = None,
) -> Direct | None:
    """The codes of `weight` [out, in], bfloat16; None where it or a scale is not finite.

    `take(n)` gives the n bytes that the codes are put into; they are fresh memory otherwise.
    `known`: the :func:`magnitudes`, where `weight` is a part that does not tell them.
    """
    bits = weight.contiguous().view(torch.uint16).numpy()
    height, width = spans(args, *bits.shape)
    largest = magnitudes(weight, args) if known is None else known
    if largest.max() >= INFINITE:
        return None
    absmax = torch.from_numpy(largest.view(np.int16)).view(torch.bfloat16)
    scale = scales_of(absmax.reshape(scale_shape(args, *bits.shape)), args)
    spread = scale.float().reshape(-(-bits.shape[0] // height), -1).numpy()
    out = (take or _fresh)(coded_bytes(bits.shape, args, layout))
    return _codes(bits, spread, height, width, args, out, scale, packed=layout == PACKED)


def _fresh(size: int) -> NDArray[np.uint8]:
    return np.empty(size, dtype=np.uint8)


def coded_bytes(shape: tuple[int, ...], args: WeightFormat, layout: str) -> int:
    """The bytes of what is stored for a weight of `shape`: rows of words where it is packed."""
    return 4 * shape[0] * words_in(shape[1], args.num_bits) if layout == PACKED else prod(shape)


def magnitudes(weight: Tensor, args: WeightFormat) -> kernels.Bits:
    """The largest magnitude under every scale [row blocks, column blocks]; NaN is above infinity.

    weight: [out, in], bfloat16. The bits of bfloat16 are in the order of what they stand for.
    """
    bits = weight.contiguous().view(torch.uint16).numpy()
    rows, columns = bits.shape
    height, width = spans(args, rows, columns)
    found = np.empty((rows, -(-columns // width)), dtype=np.uint16)

    def tile(start: int, stop: int) -> None:
        kernels.largest(bits[start:stop], width, found[start:stop])

    row_tiles(rows, max(1, ELEMENTS // columns), tile)
    if height > 1:
        found = np.maximum.reduceat(found, np.arange(0, rows, height), axis=0)
    return found


def _codes(
    bits: kernels.Bits,
    scale: NDArray[np.float32],
    height: int,
    width: int,
    args: WeightFormat,
    out: NDArray[np.uint8],
    stored: Tensor,
    *,
    packed: bool,
) -> Direct:
    count, columns = bits.shape
    floats, half = args.type == "float", np.float32(2.0 ** (args.num_bits - 1))
    kind = np.dtype(np.uint32 if packed else np.uint8 if floats else np.int8)
    codes = out.view(kind).reshape(count, -1)
    rows, errors = np.empty(count, dtype=np.uint32), np.empty((count, 2))
    step = max(1, ELEMENTS // columns)
    sums = np.zeros((-(-count // step), columns), dtype=np.uint32)

    def tile(start: int, stop: int) -> None:
        own = slice(start, stop)
        given = (bits[own], scale, height, width, start)
        wanted = (codes[own], rows[own], sums[start // step], errors[own])
        if floats:
            kernels.to_fp8(*given, *wanted)
        elif packed:
            kernels.to_words(*given, args.num_bits, *wanted)
        else:
            kernels.to_integers(*given, half, *wanted)

    row_tiles(count, step, tile)
    tensor = torch.from_numpy(codes.view(np.int32) if packed else codes)
    return Direct(
        codes=tensor.view(torch.float8_e4m3fn) if floats else tensor,
        scale=stored,
        rows=torch.from_numpy(rows.astype(np.int64)),
        columns=torch.from_numpy((sums.sum(axis=0, dtype=np.uint64) % 2**32).astype(np.int64)),
        errors=errors,
    )
