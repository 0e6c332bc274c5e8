"""Kinds of work that estimates count, which the measured speeds of a machine turn into seconds.

============  ==========================================================================
forward       floating-point operations of a forward pass: 2 x parameters x tokens
backward      the same of forward and backward passes of learning, with the forward
gram          products of a Gram matrix, of which its upper half is computed: n^2 x rows
factor        operations of a Cholesky factor: n^3 / 3
columns       columns of a column loop, for what a GPU takes to launch each
solve         rows x n^2 of nearest plane, products between blocks, and descent
search        weights whose scales are searched and whose codes are chosen by a solver
round         weights that are rounded
pack          weights whose codes are packed, and whose checksums are computed
learn         weights x steps of learned rounding
product       floating-point operations of products in float32
copy, check   bytes copied into a checkpoint, and of weights compared with their originals
node          nodes, for what each takes beside its arithmetic
============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping

FORWARD, BACKWARD, GRAM, FACTOR, COLUMNS = "forward", "backward", "gram", "factor", "columns"
SOLVE, SEARCH, ROUND, PACK = "solve", "search", "round", "pack"
LEARN, PRODUCT = "learn", "product"
COPY, CHECK, NODE = "copy", "check", "node"


def added(*parts: Mapping[str, float]) -> dict[str, float]:
    """The sum of several amounts of work, kind by kind."""
    total: dict[str, float] = {}
    for part in parts:
        for kind, amount in part.items():
            total[kind] = total.get(kind, 0.0) + amount
    return total


def solving(rows: int, columns: int) -> dict[str, float]:
    """Work of choosing codes of weights [rows, columns] in the metric of their inputs.

    The factor of their Gram matrix is not in it: weights that share one are solved with one
    factor (:func:`factoring`).
    """
    elements = float(rows * columns)
    return {SOLVE: elements * columns, SEARCH: elements}


def factoring(columns: int) -> dict[str, float]:
    """Work of one stack of weights beside its rows: a Cholesky factor, and a loop over columns."""
    return {FACTOR: columns**3 / 3, COLUMNS: float(columns)}
