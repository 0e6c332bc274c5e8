"""Unpack codes of 2 to 8 bits from int32 words."""

from __future__ import annotations

import torch
from torch import Tensor

WORD = 32


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
