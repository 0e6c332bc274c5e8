"""Unpack codes of 2 to 8 bits from int32 words."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 32
PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}
"""Bits of a code that a planar word holds together, the lowest first: parts that divide 32."""


def unpacked(words: Tensor, bits: int, count: int) -> Tensor:
    """int8 [count, n]: the codes in int32 `words` [w, n], less half their range.

    Every column is a stream of unsigned codes of 2 to 8 `bits`, the first in the lowest bits of
    the first word; a code may continue in the next word.
    """
    missing = -words.shape[0] % bits
    if missing:
        words = torch.nn.functional.pad(words, (0, 0, 0, missing))
    # 32 codes fill `bits` words
    groups = words.reshape(-1, bits, words.shape[1])
    codes = torch.empty(groups.shape[0], WORD, words.shape[1], dtype=torch.int8)
    codes = codes.to(words.device)
    for index in range(WORD):
        word, shift = divmod(index * bits, WORD)
        here = min(bits, WORD - shift)
        code = (groups[:, word] >> shift) & ((1 << here) - 1)
        if here < bits:
            code |= (groups[:, word + 1] & ((1 << bits - here) - 1)) << here
        codes[:, index] = code - (1 << bits - 1)
    return codes.reshape(-1, words.shape[1])[:count]


def unpacked_planes(words: Tensor, bits: int, count: int) -> Tensor:
    """int8 [count, n]: the codes in planar int32 `words` [w, n], less half their range.

    32 codes of 2 to 8 `bits` fill `bits` words: first those with their lowest bits, then those with
    the next ones, each part (PLANES) packed as codes of so many bits are.
    """
    blocks = words.reshape(-1, bits, words.shape[1])
    codes = torch.zeros(blocks.shape[0] * WORD, words.shape[1], dtype=torch.int16)
    codes = codes.to(words.device)
    low = 0
    for width in PLANES[bits]:
        plane = blocks[:, low : low + width].reshape(-1, words.shape[1])
        half = 1 << (width - 1)
        codes |= (unpacked(plane, width, codes.shape[0]).to(torch.int16) + half) << low
        low += width
    return (codes[:count] - (1 << (bits - 1))).to(torch.int8)
