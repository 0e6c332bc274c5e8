"""Pack integer codes into 32-bit words, the layout `pack-quantized`, and unpack them.

compressed-tensors defines the bytes, and tests compare with it. Its own packing takes a third of
the time that solving the weight takes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from stages.compute.compiled import compiled
from stages.schemes.layouts import words_in

WORD = 32
"""Bits of a word."""


def words_of_codes(codes: Tensor, num_bits: int) -> Tensor:
    """int32 [out, ceil(in * num_bits / 32)]: signed codes, int8 [out, in], packed."""
    rows, columns = codes.shape
    if not codes.is_cpu:
        return _words_by_torch(codes, num_bits)
    out = np.empty((rows, words_in(columns, num_bits)), dtype=np.uint32)
    pack_rows(codes.contiguous().numpy(), num_bits, out)
    return torch.from_numpy(out.view(np.int32))


def _words_by_torch(codes: Tensor, num_bits: int) -> Tensor:
    """As :func:`pack_rows`, by tensor arithmetic: 32 codes fill `num_bits` words."""
    rows, columns = codes.shape
    given = pad(codes.int() + (1 << (num_bits - 1)), (0, -columns % WORD))
    given = given.unflatten(1, (-1, WORD))
    words = given.new_zeros((rows, given.shape[1], num_bits))
    for index in range(WORD):
        word, shift = divmod(index * num_bits, WORD)
        words[..., word] |= given[..., index] << shift
        if shift + num_bits > WORD:
            words[..., word + 1] |= given[..., index] >> (WORD - shift)
    stored: Tensor = words.flatten(1)[:, : words_in(columns, num_bits)].contiguous()
    return stored


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
