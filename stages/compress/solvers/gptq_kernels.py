"""The loops over single columns, compiled for a CPU.

Tiles are transposed, [columns, rows of the tile]: rows are independent, so every inner loop runs
along a row of memory and becomes vector instructions. No kernel is parallel: the caller runs one
tile per thread (the interpreter lock is released).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stages.compress.grid import Rounding
from stages.compute.compiled import compiled as machine_code

LANES = 64  # rows of a sub-tile: a block of 128 columns of it stays in the caches of one core

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """`function` as machine code that releases the interpreter lock."""
    return machine_code(fastmath={"contract", "reassoc", "nsz"})(function)


def as_float32(rounding: Rounding) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """(binade, step, low, high) as the kernels take them."""
    return (
        np.float32(rounding.binade),
        np.float32(rounding.step),
        np.float32(rounding.low),
        np.float32(rounding.high),
    )


@compiled
def rounded(
    x: np.float32, binade: np.float32, step: np.float32, low: np.float32, high: np.float32
) -> np.float32:
    """:func:`stages.compress.grid.round_to` for one float32."""
    x = min(max(x, low), high)
    bits = np.int32(np.float32(x).view(np.int32) & np.int32(0x7F800000))
    unit = max(bits.view(np.float32), binade) * step
    return np.float32(np.rint(x / unit) * unit)


@compiled
def lower_in_order(H: Floats, diagonal: Floats, order: Ints, out: Floats) -> None:
    """out[i, j] = H[order[i], order[j]] for j < i, and ``diagonal`` [n] in that order at j = i."""
    for i in range(order.shape[0]):
        line, found = H[order[i]], out[i]
        for j in range(i):
            found[j] = line[order[j]]
        found[i] = diagonal[order[i]]


@compiled
def nearest_plane_block(
    w: Floats,
    carried: Floats,
    factor: Floats,
    group: Ints,
    scale: Floats,
    zero: Floats,
    code: Floats,
    error: Floats,
    binade: np.float32,
    step: np.float32,
    low: np.float32,
    high: np.float32,
) -> None:
    """One block of columns of GPTQ; see :mod:`stages.compress.solvers.gptq` for the notation.

    w, carried, code, error [block, rows]; factor [block, block] upper triangular; group [block];
    scale, zero [groups, rows]. Writes ``code`` minus zero point, ``error`` = w - q, and leaves
    e M in ``carried``.
    """
    columns, rows = w.shape
    for first in range(0, rows, LANES):
        # every loop counts from 0: numba wraps negative indices, which keeps others from vectors
        width = min(LANES, rows - first)
        for k in range(columns):
            diagonal = factor[k, k]
            inverse = np.float32(1.0) / diagonal
            wk, ck = w[k, first : first + width], carried[k, first : first + width]
            vk, ek = code[k, first : first + width], error[k, first : first + width]
            sk = scale[group[k], first : first + width]
            zk = zero[group[k], first : first + width]
            for t in range(width):
                target = (wk[t] + ck[t] * inverse) / sk[t] + zk[t]
                vk[t] = rounded(target, binade, step, low, high) - zk[t]
            for t in range(width):
                ek[t] = wk[t] - vk[t] * sk[t]
                ck[t] += ek[t] * diagonal
            for j in range(k + 1, columns):
                m, cj = factor[k, j], carried[j, first : first + width]
                for t in range(width):
                    cj[t] += m * ek[t]


@compiled
def descend_block(
    code: Floats,
    gradient: Floats,
    gram: Floats,
    group: Ints,
    scale: Floats,
    zero: Floats,
    change: Floats,
    gained: Floats,
    refit: bool,
    descend: bool,
    onward: bool,
    multiplier: np.float32,
    binade: np.float32,
    step: np.float32,
    low: np.float32,
    high: np.float32,
    scale_binade: np.float32,
    scale_step: np.float32,
    scale_low: np.float32,
    scale_high: np.float32,
) -> None:
    """One block of columns of :func:`stages.compress.solvers.coordinate_descent.descend`.

    code (minus zero point), gradient = e H [block, rows]; gram [block, block]; group [block],
    ascending; scale, zero [groups, rows]. Changes code, gradient and scale in place, writes to
    ``change`` [block, rows] by how much the quantized values changed, and adds to ``gained`` [rows]
    by how much e H e^T did. With ``refit`` every group of the block lies within it whole; with
    ``onward`` the gradient of columns that are done is left as it was.
    """
    columns, rows = code.shape
    product = np.empty((columns, LANES), np.float32)
    delta = np.empty(LANES, np.float32)
    upper = np.empty(LANES, np.float32)
    lower = np.empty(LANES, np.float32)
    for first in range(0, rows, LANES):
        width = min(LANES, rows - first)
        total = gained[first : first + width]
        for k in range(columns):
            sk, dk = scale[group[k], first : first + width], change[k, first : first + width]
            vk = code[k, first : first + width]
            for t in range(width):
                dk[t] = -vk[t] * sk[t]
        begin = 0
        while begin < columns:
            g = group[begin]
            end = begin
            while end < columns and group[end] == g:
                end += 1
            sg, zg = scale[g, first : first + width], zero[g, first : first + width]
            if refit:
                # min over the scale: e -> e - d v, so d = (e H v) / (v H v)
                since = begin if onward else 0
                product[since:] = np.float32(0.0)
                for k in range(begin, end):
                    vk = code[k, first : first + width]
                    for j in range(since, columns):
                        h, pj = gram[k, j], product[j]
                        for t in range(width):
                            pj[t] += h * vk[t]
                upper[:] = np.float32(0.0)
                lower[:] = np.float32(0.0)
                for k in range(begin, end):
                    vk, rk = code[k, first : first + width], gradient[k, first : first + width]
                    pk = product[k]
                    for t in range(width):
                        upper[t] += vk[t] * rk[t]
                        lower[t] += vk[t] * pk[t]
                for t in range(width):
                    d = np.float32(0.0)
                    if lower[t] > np.float32(0.0):
                        wanted = (sg[t] + upper[t] / lower[t]) * multiplier
                        new = rounded(wanted, scale_binade, scale_step, scale_low, scale_high)
                        d = new / multiplier - sg[t]
                        gain = d * (d * lower[t] - np.float32(2.0) * upper[t])
                        if gain >= np.float32(0.0):
                            d = np.float32(0.0)
                        else:
                            sg[t] = new / multiplier
                            total[t] += gain
                    delta[t] = d
                for j in range(since, columns):
                    rj, pj = gradient[j, first : first + width], product[j]
                    for t in range(width):
                        rj[t] -= delta[t] * pj[t]
            if descend:
                for k in range(begin, end):
                    if gram[k, k] <= np.float32(0.0):
                        continue
                    inverse = np.float32(1.0) / gram[k, k]
                    vk, rk = code[k, first : first + width], gradient[k, first : first + width]
                    for t in range(width):
                        target = vk[t] + rk[t] * inverse / sg[t] + zg[t]
                        new = rounded(target, binade, step, low, high) - zg[t]
                        delta[t] = (new - vk[t]) * sg[t]
                        total[t] += delta[t] * (delta[t] * gram[k, k] - np.float32(2.0) * rk[t])
                        vk[t] = new
                    for j in range(k + 1 if onward else 0, columns):
                        h, rj = gram[k, j], gradient[j, first : first + width]
                        for t in range(width):
                            rj[t] -= h * delta[t]
            for k in range(begin, end):
                vk, dk = code[k, first : first + width], change[k, first : first + width]
                for t in range(width):
                    dk[t] += vk[t] * sg[t]
            begin = end
