"""Pack integer codes into 32-bit words, the layout `pack-quantized`, and unpack them.

compressed-tensors defines the bytes, and tests compare with it. Its own packing takes a third of
the time that solving the weight takes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.compute.compiled import compiled
from stages.schemes.layouts import words_in


def words_of(weight: Tensor, scale: Tensor, zero_point: Tensor | None, num_bits: int) -> Tensor:
    """int32 [out, ceil(in * num_bits / 32)]: round(weight / scale) + zero_point, packed.

    weight: float32 [out, in] on the CPU; scale: [out, groups] of any floating dtype; zero_point:
    int8 of that shape. Codes are clamped to the range of `num_bits`.
    """
    rows, columns = weight.shape
    zero = torch.zeros_like(scale, dtype=torch.float32) if zero_point is None else zero_point
    out = np.empty((rows, words_in(columns, num_bits)), dtype=np.uint32)
    _pack_weight(
        weight.detach().contiguous().numpy(),
        scale.float().contiguous().numpy(),
        zero.float().contiguous().numpy(),
        num_bits,
        out,
    )
    return torch.from_numpy(out.view(np.int32))


def words_of_codes(codes: Tensor, num_bits: int) -> Tensor:
    """int32 [out, ceil(in * num_bits / 32)]: signed codes, int8 [out, in] on the CPU, packed."""
    rows, columns = codes.shape
    out = np.empty((rows, words_in(columns, num_bits)), dtype=np.uint32)
    pack_rows(codes.contiguous().numpy(), num_bits, out)
    return torch.from_numpy(out.view(np.int32))


@compiled()
def pack_rows(codes: NDArray[np.int8], num_bits: int, out: NDArray[np.uint32]) -> None:
    """Pack codes [r, c], low bits first without gaps, into words [r, ceil(c * num_bits / 32)]."""
    half, mask = np.uint64(1 << (num_bits - 1)), np.uint64((1 << num_bits) - 1)
    width = np.uint64(num_bits)
    for i in range(codes.shape[0]):
        held, count, word = np.uint64(0), np.uint64(0), 0
        for j in range(codes.shape[1]):
            held |= ((np.uint64(np.int64(codes[i, j])) + half) & mask) << count
            count += width
            if count >= np.uint64(32):
                out[i, word] = np.uint32(held & np.uint64(0xFFFFFFFF))
                held >>= np.uint64(32)
                count -= np.uint64(32)
                word += 1
        if count:
            out[i, word] = np.uint32(held)


@compiled()
def unpack_rows(words: NDArray[np.uint32], num_bits: int, out: NDArray[np.uint8]) -> None:
    """Unpack words [r, .] into codes [r, c] as unsigned bytes; the inverse of `pack_rows`."""
    mask, width = np.uint64((1 << num_bits) - 1), np.uint64(num_bits)
    for i in range(out.shape[0]):
        held, count, word = np.uint64(0), np.uint64(0), 0
        for j in range(out.shape[1]):
            if count < width:
                held |= np.uint64(words[i, word]) << count
                count += np.uint64(32)
                word += 1
            out[i, j] = np.uint8(held & mask)
            held >>= width
            count -= width


@compiled()
def _pack_weight(
    weight: NDArray[np.float32],
    scale: NDArray[np.float32],
    zero: NDArray[np.float32],
    num_bits: int,
    out: NDArray[np.uint32],
) -> None:
    codes = np.empty((1, weight.shape[1]), dtype=np.int8)
    low, high = np.float32(-(1 << (num_bits - 1))), np.float32((1 << (num_bits - 1)) - 1)
    width = weight.shape[1] // scale.shape[1]
    for i in range(weight.shape[0]):
        for g in range(scale.shape[1]):
            part = slice(g * width, (g + 1) * width)
            _nearest(weight[i, part], scale[i, g], zero[i, g], low, high, codes[0, part])
        pack_rows(codes, num_bits, out[i : i + 1])


@compiled()
def _nearest(
    weight: NDArray[np.float32],
    scale: np.float32,
    zero: np.float32,
    low: np.float32,
    high: np.float32,
    codes: NDArray[np.int8],
) -> None:
    for j in range(codes.shape[0]):
        code = np.float32(np.rint(np.float32(weight[j] / scale) + zero))
        codes[j] = np.int8(np.int32(min(max(code, low), high)))
