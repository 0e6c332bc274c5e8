"""Weight ranges on a CPU: one compiled pass over the weight.

Floats are taken by their bits. As signed integers, those without the sign bit are in the order of
their values and above the others; as unsigned ones, those with it are in the order of their
magnitudes and above the others. So two integer maxima give both ends of a range that holds 0.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from stages.compress.grid_kernels import compiled


@compiled
def bounds_of_rows(
    signed: NDArray[Any],
    unsigned: NDArray[Any],
    width: int,
    plus_zero: Any,
    minus_zero: Any,
    low: NDArray[Any],
    high: NDArray[Any],
) -> None:
    """Bits of the ends of the range of `width` columns each, the last may be fewer, and of 0.

    signed, unsigned [r, c]: the bits of the floats, two views of one memory; plus_zero and
    minus_zero in their dtypes. low, high [r, g] in those of `unsigned` and `signed`: a low end of 0
    is -0, NaN is beyond infinity on the side of its sign.
    """
    rows, columns = signed.shape
    for i in range(rows):
        for g in range(high.shape[1]):
            first, stop = g * width, min(columns, (g + 1) * width)
            positive, negative = signed[i, first:stop], unsigned[i, first:stop]
            top, bottom = plus_zero, minus_zero
            for j in range(positive.shape[0]):
                top = max(top, positive[j])
                bottom = max(bottom, negative[j])
            high[i, g], low[i, g] = top, bottom
