"""Read the codes of a stored weight, a byte each or packed into words, in pieces of rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stages.formats.codes import BOTH
from stages.formats.fp4_packing import FORMATS as FP4
from stages.formats.int_packing import unpack_rows
from stages.schemes.layouts import PACKED, words_in
from stages.schemes.protocols import WeightFormat
from stages.weights.row_bands import Matrix

Bytes = NDArray[np.uint8]
PIECE = 1 << 22
"""Approximate number of packed codes that are unpacked at once."""


class Codes(Protocol):
    """The codes of a weight [rows, columns], as unsigned bytes."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def values(self) -> NDArray[np.float32]:
        """The value of each of the 256 bytes."""
        ...

    def pieces(self) -> Iterator[tuple[int, Bytes]]:
        """(first row, codes of some rows) for all rows in turn; each is valid until the next."""
        ...

    def rows(self, start: int, stop: int) -> Bytes:
        """The codes of some rows, unpacked without compiled loops."""
        ...


@dataclass(frozen=True, slots=True)
class ByteCodes:
    """Codes stored as a byte each."""

    matrix: Matrix

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    @property
    def values(self) -> NDArray[np.float32]:
        every = torch.arange(256, dtype=torch.uint8).view(self.matrix.dtype)
        values: NDArray[np.float32] = every.float().numpy()
        return values

    def pieces(self) -> Iterator[tuple[int, Bytes]]:
        for start, stop in self.matrix.bands():
            yield start, self.rows(start, stop)

    def rows(self, start: int, stop: int) -> Bytes:
        codes: Bytes = self.matrix.read(start, stop).contiguous().view(torch.uint8).numpy()
        return codes


@dataclass(frozen=True, slots=True)
class PackedCodes:
    """Unsigned codes packed without gaps, low bits first, in int32 words or bytes [rows, .].

    `values` float32 [256] gives the value of every code; entries of codes that cannot occur are
    arbitrary.
    """

    matrix: Matrix
    columns: int
    num_bits: int
    values: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.columns

    def pieces(self) -> Iterator[tuple[int, Bytes]]:
        rows, columns = self.shape
        count = min(rows, max(1, PIECE // max(1, columns)))
        buffer = np.empty((count, columns), dtype=np.uint8)
        for first, last in self.matrix.bands():
            words = self._words(first, last)
            for start in range(0, last - first, count):
                part = buffer[: min(count, last - first - start)]
                unpack_rows(words[start : start + count], self.num_bits, part)
                yield first + start, part

    def rows(self, start: int, stop: int) -> Bytes:
        packed = self._words(start, stop).astype("<u4").view(np.uint8)
        bits = np.unpackbits(packed, axis=1, bitorder="little")[:, : self.columns * self.num_bits]
        weights = (1 << np.arange(self.num_bits)).astype(np.uint8)
        codes: Bytes = bits.reshape(stop - start, self.columns, self.num_bits) @ weights
        return codes

    def _words(self, start: int, stop: int) -> NDArray[np.uint32]:
        data: Bytes = self.matrix.read(start, stop).contiguous().view(torch.uint8).numpy()
        return data.view(np.uint32)


def codes_of(
    matrix: Matrix, others: Mapping[str, Tensor], args: WeightFormat, layout: str
) -> Codes:
    """The codes in a module's main tensor; `others` are its other tensors by local name.

    Raises KeyError or ValueError if the tensors do not fit together.
    """
    if layout in FP4:
        if matrix.dtype != torch.uint8 or matrix.shape[1] % 4:
            raise ValueError(f"weight_packed is {matrix.dtype} {list(matrix.shape)}")
        return PackedCodes(matrix, 2 * matrix.shape[1], 4, np.tile(BOTH, 16))
    if layout != PACKED:
        if matrix.dtype.itemsize != 1:
            raise ValueError(f"the weight is stored in {matrix.dtype}")
        return ByteCodes(matrix)
    rows, columns = (int(size) for size in others["weight_shape"])
    if matrix.dtype != torch.int32 or matrix.shape != (rows, words_in(columns, args.num_bits)):
        raise ValueError(f"weight_packed is {matrix.dtype} {list(matrix.shape)}")
    values = np.arange(256, dtype=np.float32) - np.float32(2 ** (args.num_bits - 1))
    return PackedCodes(matrix, columns, args.num_bits, values)
