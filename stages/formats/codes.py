"""The codes of a weight as a checkpoint holds them: a byte each, or packed into words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.formats.plain import words_in
from stages.formats.words import unpack_rows

Bytes = NDArray[np.uint8]
PIECE = 1 << 22
"""About so many packed codes are bytes at once."""


class Codes(Protocol):
    """The codes of a weight [rows, columns], as unsigned bytes."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def values(self) -> NDArray[np.float32]:
        """What each of the 256 bytes stands for."""
        ...

    def pieces(self) -> Iterator[tuple[int, Bytes]]:
        """(first row, codes of some rows), all rows in turn; each is good until the next."""
        ...

    def rows(self, start: int, stop: int) -> Bytes:
        """The codes of some rows, got without compiled loops."""
        ...


@dataclass(frozen=True, slots=True)
class ByteCodes:
    """Codes that are a byte each: `codes` [rows, columns], `values` [256]."""

    codes: Bytes
    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    def pieces(self) -> Iterator[tuple[int, Bytes]]:
        yield 0, self.codes

    def rows(self, start: int, stop: int) -> Bytes:
        return self.codes[start:stop]


@dataclass(frozen=True, slots=True)
class PackedCodes:
    """Unsigned codes without gaps, low bits first, in `words` [rows, .]."""

    words: NDArray[np.uint32]
    columns: int
    num_bits: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.words.shape[0], self.columns

    @property
    def values(self) -> NDArray[np.float32]:
        half = np.float32(2 ** (self.num_bits - 1))
        return np.arange(256, dtype=np.float32) - half

    def pieces(self) -> Iterator[tuple[int, Bytes]]:
        rows, columns = self.shape
        count = min(rows, max(1, PIECE // max(1, columns)))
        room = np.empty((count, columns), dtype=np.uint8)
        for start in range(0, rows, count):
            part = room[: min(count, rows - start)]
            unpack_rows(self.words[start : start + count], self.num_bits, part)
            yield start, part

    def rows(self, start: int, stop: int) -> Bytes:
        octets = self.words[start:stop].astype("<u4").view(np.uint8)
        bits = np.unpackbits(octets, axis=1, bitorder="little")[:, : self.columns * self.num_bits]
        weights = (1 << np.arange(self.num_bits)).astype(np.uint8)
        codes: Bytes = bits.reshape(stop - start, self.columns, self.num_bits) @ weights
        return codes


def codes_of(stored: Mapping[str, Tensor], num_bits: int) -> Codes:
    """The codes among a module's stored tensors (by local name).

    Raises KeyError or ValueError where the tensors do not fit together.
    """
    if "weight_packed" not in stored:
        weight = stored["weight"].contiguous()
        every = torch.arange(256, dtype=torch.uint8).view(weight.dtype).float()
        return ByteCodes(weight.view(torch.uint8).numpy(), every.numpy())
    rows, columns = (int(size) for size in stored["weight_shape"])
    words = stored["weight_packed"].contiguous().numpy().view(np.uint32)
    if words.shape != (rows, words_in(columns, num_bits)):
        raise ValueError(f"weight_packed has the shape {list(words.shape)}")
    return PackedCodes(words, columns, num_bits)
