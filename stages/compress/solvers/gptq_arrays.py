"""Arrays that GPTQ's column loops work on: one interface for compiled, torch and GPU kernels.

Weights are transposed, [columns, rows]: rows are independent of each other, so that every step
along a column is one vector operation. All arrays are contiguous; floats are float32. `A` is the
kind of array: a torch Tensor outside the loops, a NumPy array inside the compiled ones.
"""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

A = TypeVar("A")


class Columns(NamedTuple, Generic[A]):
    """A block of columns that GPTQ quantizes, [columns, rows] each.

    W: the weight. EM: the columns of E M, summed over the columns before the block; the loop
    completes them. code: written, the code minus its zero point. E: written, the error W - Q.
    keep: 0 for entries that stay zero, else 1; None where all are free, which compiled loops, whose
    types are fixed, are told by an empty array.
    """

    W: A
    EM: A
    code: A
    E: A
    keep: Any = None


class Descent(NamedTuple, Generic[A]):
    """A block of columns under coordinate descent: code, gradient and change are [columns, rows].

    code: minus its zero point, updated. gradient: E H, updated. change: written, by how much the
    quantized values changed. gained [rows]: what E H E^T changed by is added to it. keep: as in
    Columns; entries of 0 have code 0 already.
    """

    code: A
    gradient: A
    change: A
    gained: A
    keep: Any = None


class Params(NamedTuple, Generic[A]):
    """Scales of a block of columns: scale, zero_point [groups, rows] as they take effect.

    group: int64 [columns], the row of both that every column uses. width: how many neighbouring
    columns share one.
    """

    scale: A
    zero_point: A
    group: A
    width: int

    def of(self, group: A) -> Params[A]:
        """The scales of other columns, which use these groups."""
        return self._replace(group=group)


class Sweep(NamedTuple):
    """What one sweep of coordinate descent does to a block.

    refit: fit the scale of every group, all of which lie within the block whole. descend: choose
    every code anew. onward: leave the gradient of columns that are done as it was. multiplier: the
    global scale, or 1: scales are rounded as multiples of its inverse.
    """

    refit: bool
    descend: bool
    onward: bool
    multiplier: float
