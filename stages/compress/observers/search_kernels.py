"""The loops of the scale search, compiled for a CPU.

For one scale and n values the error of a candidate is sum_i weight_i |q(x_i) - x_i|^norm. No kernel
is parallel: the caller runs one tile of scales per thread.
"""

from __future__ import annotations

import numpy as np

from stages.compress.grid_kernels import LANES, Floats, Ints, Rounding32, compiled, rounded

SHORT = 128
"""Values of a scale up to which LANES of them stay in the caches of one core."""


@compiled
def _power(x: np.float32, exponent: np.float32) -> np.float32:
    """x**exponent for finite x >= 0, to some 1e-6 relative, in plain arithmetic (vectorises).

    2**(exponent * log2(x)): the exponent's bits, and polynomials through Chebyshev points for
    log2(1 + f) and 2**f on [0, 1). Results beyond 2**-126 and
    2**127 come out as those, and 0 as 2**(-127 * exponent) or 2**-126.
    """
    bits = np.float32(x).view(np.int32)
    power = np.float32((bits >> 23) - 127)
    f = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32) - np.float32(1.0)
    log = np.float32(-0.008665699511766434)
    log = log * f + np.float32(0.04943336918950081)
    log = log * f - np.float32(0.13314692676067352)
    log = log * f + np.float32(0.2380419820547104)
    log = log * f - np.float32(0.34542933106422424)
    log = log * f + np.float32(0.47817644476890564)
    log = log * f - np.float32(0.7210957407951355)
    log = log * f + np.float32(1.442685842514038)
    log = log * f + np.float32(5.642244005343855e-08)
    y = min(max((power + log) * exponent, np.float32(-126.0)), np.float32(127.0))
    whole = np.floor(y)
    g = y - whole
    two = np.float32(0.00021865784947294742)
    two = two * g + np.float32(0.0012391331838443875)
    two = two * g + np.float32(0.009684186428785324)
    two = two * g + np.float32(0.055480629205703735)
    two = two * g + np.float32(0.24023045599460602)
    two = two * g + np.float32(0.6931469440460205)
    two = two * g + np.float32(1.0)
    return np.float32(two * np.int32((np.int32(whole) + 127) << 23).view(np.float32))


@compiled
def _off_integers(
    x: np.float32,
    s: np.float32,
    inverse: np.float32,
    z: np.float32,
    codes: Rounding32,
) -> np.float32:
    """(round(x / s + z) - z) * s - x for integer codes; `inverse` is 1 / s."""
    return np.float32((np.rint(min(max(x * inverse + z, codes.low), codes.high)) - z) * s - x)


@compiled
def _off_floats(
    x: np.float32,
    s: np.float32,
    inverse: np.float32,
    z: np.float32,
    codes: Rounding32,
) -> np.float32:
    """:func:`_off_integers` for codes of any kind."""
    return (rounded(x * inverse + z, codes) - z) * s - x


@compiled
def _error(
    x: Floats,
    weight: Floats,
    s: np.float32,
    z: np.float32,
    norm: np.float32,
    codes: Rounding32,
) -> np.float32:
    """sum_i weight[i] * |(round(x[i] / s + z) - z) * s - x[i]|^norm."""
    inverse = np.float32(1.0) / s
    total = np.float32(0.0)
    integers = codes.binade * codes.step == np.float32(1.0)
    if norm == np.float32(2.0):
        if integers:
            for i in range(len(x)):
                e = _off_integers(x[i], s, inverse, z, codes)
                total += weight[i] * e * e
        else:
            for i in range(len(x)):
                e = _off_floats(x[i], s, inverse, z, codes)
                total += weight[i] * e * e
    elif integers:
        for i in range(len(x)):
            e = _off_integers(x[i], s, inverse, z, codes)
            total += weight[i] * _power(abs(e), norm)
    else:
        for i in range(len(x)):
            e = _off_floats(x[i], s, inverse, z, codes)
            total += weight[i] * _power(abs(e), norm)
    return total


@compiled
def best_scale(
    x: Floats,
    scale: Floats,
    zero: Floats,
    weight: Floats,
    start: int,
    stop: int,
    best: Ints,
    norm: np.float32,
    codes: Rounding32,
) -> None:
    """best[p] = argmin_k of the error of candidate k for start <= p < stop; ties go to the first.

    x [p, n], scale and zero [p, k], weight [m, n] of which scale p uses row p % m, best [p].
    """
    for p in range(start, stop):
        values, weights = x[p], weight[p % weight.shape[0]]
        least = np.float32(np.inf)
        best[p] = 0
        for k in range(scale.shape[1]):
            s, z = scale[p, k], zero[p, k]
            error = _error(values, weights, s, z, norm, codes)
            if error < least:
                least = error
                best[p] = k


@compiled
def best_scale_of_short(
    x: Floats,
    scale: Floats,
    zero: Floats,
    weight: Floats,
    start: int,
    stop: int,
    best: Ints,
    norm: np.float32,
    codes: Rounding32,
) -> None:
    """:func:`best_scale` where scales have few values: LANES scales at a time, side by side."""
    n = x.shape[1]
    xs, ws = np.empty((n, LANES), np.float32), np.empty((n, LANES), np.float32)
    s, z = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    total, least = np.empty(LANES, np.float32), np.empty(LANES, np.float32)
    found = np.empty(LANES, np.int64)
    for first in range(start, stop, LANES):
        for t in range(LANES):
            p = min(first + t, stop - 1)  # lanes without a scale repeat the last
            q = p % weight.shape[0]
            for i in range(n):
                xs[i, t], ws[i, t] = x[p, i], weight[q, i]
        least[:] = np.float32(np.inf)
        found[:] = 0
        for k in range(scale.shape[1]):
            for t in range(LANES):
                p = min(first + t, stop - 1)
                s[t], z[t] = scale[p, k], zero[p, k]
            _errors(xs, ws, s, z, total, norm, codes)
            for t in range(LANES):
                if total[t] < least[t]:
                    least[t], found[t] = total[t], k
        for t in range(min(LANES, stop - first)):
            best[first + t] = found[t]


@compiled
def _errors(
    x: Floats,
    weight: Floats,
    s: Floats,
    z: Floats,
    total: Floats,
    norm: np.float32,
    codes: Rounding32,
) -> None:
    """:func:`_error` for LANES scales: x, weight [n, LANES]; s, z, total [LANES]."""
    integers = codes.binade * codes.step == np.float32(1.0)
    inverse = np.float32(1.0) / s
    total[:] = np.float32(0.0)
    for i in range(len(x)):
        if integers and norm == np.float32(2.0):
            for t in range(LANES):
                e = _off_integers(x[i, t], s[t], inverse[t], z[t], codes)
                total[t] += weight[i, t] * e * e
        elif norm == np.float32(2.0):
            for t in range(LANES):
                e = _off_floats(x[i, t], s[t], inverse[t], z[t], codes)
                total[t] += weight[i, t] * e * e
        elif integers:
            for t in range(LANES):
                e = _off_integers(x[i, t], s[t], inverse[t], z[t], codes)
                total[t] += weight[i, t] * _power(abs(e), norm)
        else:
            for t in range(LANES):
                e = _off_floats(x[i, t], s[t], inverse[t], z[t], codes)
                total[t] += weight[i, t] * _power(abs(e), norm)


@compiled
def chunk_errors(
    x: Floats,
    scale: Floats,
    zero: Floats,
    weight: Floats,
    start: int,
    stop: int,
    errors: Floats,
    norm: np.float32,
    codes: Rounding32,
) -> None:
    """errors[c, k] of candidate k on chunk c, start <= c < stop, where all share one scale.

    x and weight [c, n], scale and zero [k].
    """
    for c in range(start, stop):
        for k in range(len(scale)):
            errors[c, k] = _error(x[c], weight[c], scale[k], zero[k], norm, codes)
