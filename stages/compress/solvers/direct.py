"""Round to nearest under min-max scales, from bfloat16 to codes in two passes over the weight.

What `rtn` gives under `minmax`, packed, to the bit, for the formats without zero points and
global scales; see :func:`fits`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from numpy.typing import NDArray
from torch import Tensor

from stages.compress.grid import Grid, grid_of
from stages.compress.observers.ranges import plainly_scaled, scales_of
from stages.compress.solvers import direct_kernels as kernels
from stages.compress.solvers.tiles import row_tiles
from stages.formats.words import pack_rows

ELEMENTS = 1 << 18  # of a tile: its codes and partial sums stay in a core's caches
Take = Callable[[int], NDArray[np.uint8]]
INFINITE = 0x7F80  # bits of bfloat16
PACKED = "pack-quantized"
LAYOUTS = ("float-quantized", "naive-quantized", "int-quantized", PACKED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Direct:
    """The stored form of a weight [out, in] and what is known of it.

    codes: float8_e4m3fn or int8 [out, in], or int32 words [out, words]. scale: bfloat16, as
    `Quantized.scale`. rows [out], columns [in]: int64 sums of the bits of the dequantized weight,
    modulo 2**32. finite: no weight or scale is infinite or NaN.
    """

    codes: Tensor
    scale: Tensor
    rows: Tensor
    columns: Tensor
    relative_error: float


def fits(weight: Tensor, scheme: QuantizationScheme, dtype: torch.dtype) -> bool:
    """Whether :func:`direct` does this format: E4M3 or integers, symmetric, scales in bfloat16."""
    plain = weight.is_cpu and weight.dtype == torch.bfloat16 and dtype == torch.bfloat16
    return plain and suits(tuple(weight.shape), scheme)


def suits(shape: tuple[int, ...], scheme: QuantizationScheme) -> bool:
    """:func:`fits` for a weight of this shape on a CPU, if all is in bfloat16."""
    args = scheme.weights
    if args is None:
        return False
    plain = plainly_scaled(args) and args.actorder is None
    strategy = str(getattr(args.strategy, "value", args.strategy))
    tiled = strategy in ("tensor", "channel", "group", "block")
    whole = strategy != "group" or shape[1] % (args.group_size or 1) == 0
    there = prod(shape) > 0 and str(scheme.format) in LAYOUTS
    return plain and tiled and whole and there


def direct(weight: Tensor, scheme: QuantizationScheme, take: Take | None = None) -> Direct | None:
    """The codes of `weight` [out, in], bfloat16; None where it or a scale is not finite.

    `take(n)` gives the n bytes that the codes are put into; they are fresh memory otherwise.
    """
    args = scheme.weights
    if args is None:
        raise ValueError("the scheme has no weight format")
    bits = weight.contiguous().view(torch.uint16).numpy()
    grid = grid_of(args, torch.bfloat16)
    height, width = _spans(grid, *bits.shape)
    largest = _largest(bits, height, width)
    if largest.max() >= INFINITE:
        return None
    absmax = torch.from_numpy(largest.view(np.int16)).view(torch.bfloat16)
    scale = scales_of(absmax.reshape(grid.scale_shape(*bits.shape)), args)
    spread = scale.float().reshape(-(-bits.shape[0] // height), -1).numpy()
    return _codes(bits, spread, height, width, args, scheme, scale, take or _fresh)


def _fresh(size: int) -> NDArray[np.uint8]:
    return np.empty(size, dtype=np.uint8)


def codes_shape(shape: tuple[int, ...], scheme: QuantizationScheme) -> tuple[int, ...]:
    """The shape of what is stored for a weight of `shape`: rows of words where it is packed."""
    if scheme.weights is None or str(scheme.format) != PACKED:
        return shape
    return (shape[0], -(-shape[1] * scheme.weights.num_bits // 32))


def _spans(grid: Grid, rows: int, columns: int) -> tuple[int, int]:
    """How many rows and columns share a scale."""
    if grid.strategy == "tensor":
        return rows, columns
    if grid.block_structure is not None:
        return grid.block_structure
    return 1, grid.width(columns)


def _largest(bits: kernels.Bits, height: int, width: int) -> kernels.Bits:
    """The largest magnitude under every scale [row blocks, column blocks]; NaN is above infinity.

    As bits of bfloat16, which are in the order of what they stand for.
    """
    rows, columns = bits.shape
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
    args: QuantizationArgs,
    scheme: QuantizationScheme,
    stored: Tensor,
    take: Take,
) -> Direct:
    count, columns = bits.shape
    floats = str(getattr(args.type, "value", args.type)) == "float"
    packed = str(scheme.format) == PACKED
    shape = codes_shape(bits.shape, scheme)
    kind = np.dtype(np.uint32 if packed else np.uint8 if floats else np.int8)
    out = take(prod(shape) * kind.itemsize).view(kind).reshape(shape)
    rows, errors = np.empty(count, dtype=np.uint32), np.empty((count, 2))
    step = max(1, ELEMENTS // columns)
    sums = np.zeros((-(-count // step), columns), dtype=np.uint32)

    def tile(start: int, stop: int) -> None:
        own = slice(start, stop)
        shared = (rows[own], sums[start // step], errors[own])
        if floats:
            kernels.to_fp8(bits[own], scale, height, width, start, out[own], *shared)
            return
        codes = np.empty(bits[own].shape, dtype=np.int8) if packed else out[own]
        half = np.float32(2.0 ** (args.num_bits - 1))
        kernels.to_integers(bits[own], scale, height, width, start, half, codes, *shared)
        if packed:
            pack_rows(codes, args.num_bits, out[own])

    row_tiles(count, step, tile)
    difference, norm = (float(total) for total in errors.sum(axis=0))
    tensor = torch.from_numpy(out.view(np.int32) if packed else out)
    return Direct(
        codes=tensor.view(torch.float8_e4m3fn) if floats else tensor,
        scale=stored,
        rows=torch.from_numpy(rows.astype(np.int64)),
        columns=torch.from_numpy((sums.sum(axis=0, dtype=np.uint64) % 2**32).astype(np.int64)),
        relative_error=difference / norm if norm > 0 else 0.0,
    )
