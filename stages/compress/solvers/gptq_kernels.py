"""Column loops of GPTQ and of coordinate descent, compiled for a CPU.

Every inner loop runs along a row of memory and becomes vector instructions. No kernel is parallel:
the caller runs one tile per thread (the interpreter lock is released).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stages.compress.grid_kernels import LANES, Floats, Ints, Rounding32, compiled, rounded
from stages.compress.solvers.gptq_arrays import Columns, Descent, Params, Sweep


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
    block: Columns[Floats], M: Floats, params: Params[Any], codes: Rounding32
) -> None:
    """Quantize a block of columns one after the other, in place.

    M: [columns, columns], upper triangular; see :mod:`stages.compress.solvers.gptq`.
    """
    w, carried, code, error, keep = block
    bound = keep.shape[0] > 0
    scale, zero, group, _ = params
    columns, rows = w.shape
    for first in range(0, rows, LANES):
        # every loop counts from 0: numba wraps negative indices, which keeps others from vectors
        width = min(LANES, rows - first)
        for k in range(columns):
            diagonal = M[k, k]
            inverse = np.float32(1.0) / diagonal
            wk, ck = w[k, first : first + width], carried[k, first : first + width]
            vk, ek = code[k, first : first + width], error[k, first : first + width]
            sk = scale[group[k], first : first + width]
            zk = zero[group[k], first : first + width]
            for t in range(width):
                target = (wk[t] + ck[t] * inverse) / sk[t] + zk[t]
                vk[t] = rounded(target, codes) - zk[t]
            if bound:
                kept = keep[k, first : first + width]
                for t in range(width):
                    vk[t] = vk[t] if kept[t] > np.float32(0.0) else np.float32(0.0)
            for t in range(width):
                ek[t] = wk[t] - vk[t] * sk[t]
                ck[t] += ek[t] * diagonal
            for j in range(k + 1, columns):
                m, cj = M[k, j], carried[j, first : first + width]
                for t in range(width):
                    cj[t] += m * ek[t]


@compiled
def descend_block(
    block: Descent[Floats],
    H: Floats,
    params: Params[Any],
    sweep: Sweep,
    codes: Rounding32,
    scales: Rounding32,
) -> None:
    """Refit the scales and the codes of a block of columns, in place; H [columns, columns].

    `params.group` ascends; with `sweep.refit` every group of the block lies within it whole. See
    :mod:`stages.compress.solvers.coordinate_descent`.
    """
    code, gradient, change, gained, keep = block
    bound = keep.shape[0] > 0
    scale, zero, group, _ = params
    refit, descend, onward = sweep.refit, sweep.descend, sweep.onward
    multiplier = np.float32(sweep.multiplier)
    columns, rows = code.shape
    product = np.empty((columns, LANES), np.float32)
    delta = np.empty(LANES, np.float32)
    free = np.ones(LANES, np.float32)
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
                        h, pj = H[k, j], product[j]
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
                        sign = np.float32(-1.0 if sg[t] < np.float32(0.0) else 1.0)
                        new = sign * rounded(sign * wanted, scales)
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
                    if H[k, k] <= np.float32(0.0):
                        continue
                    inverse = np.float32(1.0) / H[k, k]
                    vk, rk = code[k, first : first + width], gradient[k, first : first + width]
                    if bound:
                        free[:width] = keep[k, first : first + width]
                    for t in range(width):
                        target = vk[t] + rk[t] * inverse / sg[t] + zg[t]
                        new = rounded(target, codes) - zg[t]
                        new = new if free[t] > np.float32(0.0) else np.float32(0.0)
                        delta[t] = (new - vk[t]) * sg[t]
                        total[t] += delta[t] * (delta[t] * H[k, k] - np.float32(2.0) * rk[t])
                        vk[t] = new
                    for j in range(k + 1 if onward else 0, columns):
                        h, rj = H[k, j], gradient[j, first : first + width]
                        for t in range(width):
                            rj[t] -= h * delta[t]
            for k in range(begin, end):
                vk, dk = code[k, first : first + width], change[k, first : first + width]
                for t in range(width):
                    dk[t] += vk[t] * sg[t]
            begin = end
