"""Grid search of scales: try shrunken ranges, keep the one with the least error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stages.compress.grid import Grid, QParams, Rounding, round_to
from stages.compress.observers.qparams import (
    global_scale_within,
    importance_by_scale,
    qparams_of,
)
from stages.compress.observers.range import bounds, by_scale
from stages.compute.row_tiles import row_tiles

_ELEMENTS_AT_ONCE = 1 << 22
_CHUNK = 1 << 12  # elements of a tensor-wide scale that are summed together
_TILE = 256


def search(
    weight: Tensor,
    grid: Grid,
    *,
    factors: Sequence[float],
    norm: float,
    importance: Tensor | None,
    global_scale: Tensor | None,
    expand: float = 1.0,
) -> QParams:
    """For every scale the factor p that minimises sum importance * |q_p(w) - w|^norm.

    weight [out, in]; importance float [in], >= 0, or None for ones. The scales tried are those
    that span ``p`` times ``expand`` times the group's range, each rounded as the checkpoint stores
    it, so the minimum is over what is really written. Ties go to the earlier factor.
    """
    values, (low, high) = by_scale(weight, grid), bounds(weight, grid)
    if global_scale is None and grid.strategy == "tensor_group":
        global_scale = global_scale_within(low, high, grid.dtype)
    # rounded twice, as the reference does: the candidates are then the same ones
    low, high = ((end.float() * expand).to(grid.dtype).float()[..., None] for end in (low, high))
    tried = torch.tensor(factors, dtype=torch.float32, device=weight.device)
    found = qparams_of(low * tried, high * tried, grid, global_scale=global_scale)
    scale, zero_point = found.scale, found.zero_point

    effective = scale.float() if global_scale is None else scale.float() / global_scale
    zero = torch.zeros_like(effective) if zero_point is None else zero_point.float()
    shape, elements = values.shape[:-1], values.shape[-1]
    best = _argmin(
        values.reshape(-1, elements).float(),
        effective.reshape(-1, len(factors)),
        zero.reshape(-1, len(factors)),
        _patterns(importance, grid, weight, elements),
        norm,
        grid.codes,
    ).reshape(*shape, 1)
    return QParams(
        scale=scale.gather(-1, best).squeeze(-1),
        zero_point=None if zero_point is None else zero_point.gather(-1, best).squeeze(-1),
        global_scale=global_scale,
    )


def _patterns(importance: Tensor | None, grid: Grid, weight: Tensor, elements: int) -> Tensor:
    if importance is None:
        return torch.ones(1, elements, device=weight.device)
    return importance_by_scale(importance.to(weight.device), grid, weight.shape[0])


def _argmin(
    values: Tensor, scale: Tensor, zero: Tensor, patterns: Tensor, norm: float, codes: Rounding
) -> Tensor:
    """Index [p] of the best of [p, k] scales for values [p, n] under weights [m, n]."""
    if values.device.type == "cpu":
        one = len(values) == 1
        return (_argmin_of_one if one else _argmin_compiled)(
            values, scale, zero, patterns, norm, codes
        )
    rows = max(1, _ELEMENTS_AT_ONCE // values.shape[1])
    pattern_of = torch.arange(values.shape[0], device=values.device) % patterns.shape[0]
    best = []
    for start in range(0, values.shape[0], rows):
        part = slice(start, start + rows)
        x, weight = values[part], patterns[pattern_of[part]]
        errors = []
        for k in range(scale.shape[1]):
            s, z = scale[part, k : k + 1], zero[part, k : k + 1]
            error = ((round_to(x / s + z, codes) - z) * s - x).abs_().pow_(norm)
            errors.append((error * weight).sum(dim=1))
        best.append(torch.stack(errors, dim=1).argmin(dim=1))
    return torch.cat(best)


def _argmin_compiled(
    values: Tensor, scale: Tensor, zero: Tensor, patterns: Tensor, norm: float, codes: Rounding
) -> Tensor:
    from stages.compress.grid_kernels import as_float32
    from stages.compress.observers import search_kernels as kernels

    best = torch.empty(values.shape[0], dtype=torch.int64)
    x, s, z, w = (t.contiguous().numpy() for t in (values, scale, zero, patterns))
    out, rounding = best.numpy(), as_float32(codes)
    short = values.shape[1] <= kernels.SHORT
    best_scale = kernels.best_scale_of_short if short else kernels.best_scale

    def tile(start: int, stop: int) -> None:
        best_scale(x, s, z, w, start, stop, out, np.float32(norm), rounding)

    row_tiles(values.shape[0], _TILE, tile)
    return best


def _argmin_of_one(
    values: Tensor, scale: Tensor, zero: Tensor, patterns: Tensor, norm: float, codes: Rounding
) -> Tensor:
    """As :func:`_argmin_compiled` for a single scale, whose values are summed chunk by chunk."""
    from stages.compress.grid_kernels import as_float32
    from stages.compress.observers.search_kernels import chunk_errors

    count = values.shape[1]
    chunks = -(-count // _CHUNK)
    x, w = (torch.zeros(chunks * _CHUNK) for _ in range(2))  # padding has no weight
    x[:count], w[:count] = values[0], patterns[0]
    errors = torch.empty(chunks, scale.shape[1])
    given = [t.reshape(chunks, _CHUNK).numpy() for t in (x, w)]
    s, z = scale[0].contiguous().numpy(), zero[0].contiguous().numpy()
    out, rounding = errors.numpy(), as_float32(codes)

    def tile(start: int, stop: int) -> None:
        chunk_errors(given[0], s, z, given[1], start, stop, out, np.float32(norm), rounding)

    row_tiles(chunks, 16, tile)
    return errors.double().sum(dim=0).argmin(dim=0, keepdim=True)
