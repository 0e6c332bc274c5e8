"""Round to nearest for bfloat16 weights on a CPU: one pass for the scales, one for the codes.

Values are bfloat16 by their bits (uint16). The arithmetic is that of `rtn` to the bit: quotients
are rounded to bfloat16 before they are rounded to codes, dequantized values to bfloat16. No kernel
is parallel: the caller runs one tile of rows per thread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.compute.compiled import compiled
from stages.formats.int_packing import pack_rows

TILE = 1 << 17  # codes that are packed at a time: they stay in a core's caches
Bits = NDArray[np.uint16]
Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
Sums = NDArray[np.uint32]


@compiled(inline="always")
def _bits(value: np.float32) -> np.uint32:
    return np.float32(value).view(np.uint32)


@compiled(inline="always")
def _nearest_bits(value: np.float32) -> np.uint32:
    """The bits of the bfloat16 nearest to a float32, ties to even; NaN is not looked after."""
    bits = np.float32(value).view(np.uint32)
    odd = np.uint32((bits >> np.uint32(16)) & np.uint32(1))
    return np.uint32(np.uint32(bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@compiled(inline="always")
def _as_float(bits: np.uint32) -> np.float32:
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@compiled()
def largest(weight: Bits, width: int, out: Bits) -> None:
    """out[i, g] = bits of max |weight[i, j]| over columns j of group g; NaN is above infinity."""
    rows, columns = weight.shape
    for i in range(rows):
        for g in range(out.shape[1]):
            part = weight[i, g * width : min(columns, (g + 1) * width)]
            top = np.uint16(0)
            for j in range(part.shape[0]):
                top = max(top, np.uint16(part[j] & np.uint16(0x7FFF)))
            out[i, g] = top


@compiled(fastmath={"reassoc", "contract"})
def _norms(weight: Bits, quantized: Floats) -> tuple[float, float]:
    """Squared norms of the difference and of the weight, [n] each."""
    wrong, whole = np.float32(0), np.float32(0)
    for j in range(quantized.shape[0]):
        w = _as_float(np.uint32(weight[j]))
        wrong += (w - quantized[j]) * (w - quantized[j])
        whole += w * w
    return np.float64(wrong), np.float64(whole)


@compiled()
def _sum_bits(quantized: Floats, columns: Sums) -> np.uint32:
    """Adds the bits of dequantized values [n] as bfloat16 to columns [n]; returns their sum."""
    total = np.uint32(0)
    for j in range(columns.shape[0]):
        bits = _nearest_bits(quantized[j])
        bits = np.uint32(0) if bits == np.uint32(0x8000) else bits
        total = np.uint32(total + bits)
        columns[j] = np.uint32(columns[j] + bits)
    return total


@compiled()
def _quotients(weight: Bits, scale: np.float32, out: Floats) -> None:
    """Weights [n] over their scale, rounded to bfloat16."""
    for j in range(out.shape[0]):
        out[j] = _as_float(_nearest_bits(_as_float(np.uint32(weight[j])) / scale))


@compiled()
def _nearest_fp8(x: Floats, scale: np.float32, codes: Codes) -> None:
    """E4M3 codes of x [n]; x becomes what they stand for under the scale."""
    for j in range(codes.shape[0]):
        sign = np.uint32(np.uint32(_bits(x[j]) >> np.uint32(31)) << np.uint32(7))
        value = min(max(x[j], np.float32(-448.0)), np.float32(448.0))
        power = np.uint32(_bits(value) & np.uint32(0x7F800000)).view(np.float32)
        unit = np.float32(max(power, np.float32(0.015625)) * np.float32(0.125))
        code = np.float32(np.float32(np.rint(value / unit)) * unit)
        magnitude = np.uint32(_bits(code) & np.uint32(0x7FFFFFFF))
        normal = np.uint32(np.uint32(magnitude >> np.uint32(20)) - np.uint32(960))
        small = np.uint32(np.int32(np.uint32(magnitude).view(np.float32) * np.float32(512.0)))
        chosen = small if magnitude < np.uint32(0x3C800000) else normal
        codes[j] = np.uint8(np.uint32(sign | chosen))
        x[j] = np.float32(code * scale)


@compiled()
def _nearest_integer(
    x: Floats, scale: np.float32, low: np.float32, high: np.float32, codes: NDArray[np.int8]
) -> None:
    """As `_nearest_fp8`, for the integers from `low` to `high`."""
    for j in range(codes.shape[0]):
        code = np.float32(np.rint(min(max(x[j], low), high)))
        codes[j] = np.int8(np.int32(code))
        x[j] = np.float32(code * scale)


@compiled()
def to_fp8(
    weight: Bits,
    scale: Floats,
    height: int,
    width: int,
    first: int,
    codes: Codes,
    rows: Sums,
    columns: Sums,
    errors: NDArray[np.float64],
) -> None:
    """E4M3 codes of a tile of rows that begins at row `first` of the weight.

    weight, codes [r, c]; scale [., .] is shared by `height` rows and `width` columns. rows [r] and
    columns [c] take sums of the bits of the dequantized weight; errors [r, 2] the squared norms of
    difference and weight by row.
    """
    count = weight.shape[1]
    held = np.empty(count, dtype=np.float32)
    for i in range(weight.shape[0]):
        own, line = scale[(first + i) // height], codes[i]
        for g in range(own.shape[0]):
            part = slice(g * width, min(count, (g + 1) * width))
            _quotients(weight[i, part], own[g], held[part])
            _nearest_fp8(held[part], own[g], line[part])
        rows[i] = _sum_bits(held, columns)
        errors[i, 0], errors[i, 1] = _norms(weight[i], held)


@compiled()
def to_integers(
    weight: Bits,
    scale: Floats,
    height: int,
    width: int,
    first: int,
    half: np.float32,
    codes: NDArray[np.int8],
    rows: Sums,
    columns: Sums,
    errors: NDArray[np.float64],
) -> None:
    """As `to_fp8`, for symmetric integers in [-half, half - 1]."""
    count = weight.shape[1]
    low, high = np.float32(-half), np.float32(half - np.float32(1.0))
    held = np.empty(count, dtype=np.float32)
    for i in range(weight.shape[0]):
        own, line = scale[(first + i) // height], codes[i]
        for g in range(own.shape[0]):
            part = slice(g * width, min(count, (g + 1) * width))
            _quotients(weight[i, part], own[g], held[part])
            _nearest_integer(held[part], own[g], low, high, line[part])
        rows[i] = _sum_bits(held, columns)
        errors[i, 0], errors[i, 1] = _norms(weight[i], held)


@compiled()
def to_words(
    weight: Bits,
    scale: Floats,
    height: int,
    width: int,
    first: int,
    num_bits: int,
    words: NDArray[np.uint32],
    rows: Sums,
    columns: Sums,
    errors: NDArray[np.float64],
) -> None:
    """As `to_integers`, the codes in words [r, .] as `pack_rows` has them."""
    count = weight.shape[0]
    step = max(1, TILE // weight.shape[1])
    codes = np.empty((min(step, count), weight.shape[1]), dtype=np.int8)
    half = np.float32(1 << (num_bits - 1))
    for start in range(0, count, step):
        own = slice(start, min(count, start + step))
        part = codes[: own.stop - start]
        held = (weight[own], scale, height, width, first + start, half, part)
        to_integers(*held, rows[own], columns, errors[own])
        pack_rows(part, num_bits, words[own])
