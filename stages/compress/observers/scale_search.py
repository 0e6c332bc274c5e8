"""Grid search of scales: try shrunken ranges, keep the one with the least error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from stages.compress.grid import Grid, QParams, Rounding, round_to
from stages.compress.observers.power_scale import SEARCH, neighbours
from stages.compress.observers.qparams import (
    global_scale_within,
    importance_by_scale,
    qparams_of,
)
from stages.compress.observers.range import bounds, by_scale
from stages.compute import loops
from stages.compute.row_tiles import even_tiles, row_tiles

_ELEMENTS_AT_ONCE = 1 << 22
_CHUNK = 1 << 12  # elements of a tensor-wide scale that are summed together
_TILE = 256
_DEVICE_BYTES = 1 << 30  # of a GPU's memory for the values and candidates of a tile of rows
_COPIES = 8  # of all candidates in float32 that are alive at once


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
    it, so the minimum is over what is really written. Where the grid has `negative_scales`, all of
    them are tried with the other sign too, and ties go to the positive one; else to the earlier
    factor.
    """
    values, (low, high) = by_scale(weight, grid), bounds(weight, grid)
    if global_scale is None and grid.strategy == "tensor_group":
        global_scale = global_scale_within(low, high, grid.dtype)
    patterns = _patterns(importance, grid, weight, values.shape[-1])
    found: list[QParams] = []

    def tile(start: int, stop: int) -> None:
        part = slice(start, stop)
        candidates = _candidates(low[part], high[part], grid, factors, expand, global_scale)
        found.append(_best(values[part], candidates, patterns, norm, grid.codes))

    if loops.loops_for(weight) == "compiled":
        tile(0, len(values))
    else:
        used = 2 * values[:1].numel() + _COPIES * low[:1].numel() * len(factors)
        even_tiles(len(values), _DEVICE_BYTES // (4 * max(1, used)), tile)
    if len(found) == 1:
        return found[0]
    zero_points = [part.zero_point for part in found if part.zero_point is not None]
    return QParams(
        scale=torch.cat([part.scale for part in found]),
        zero_point=torch.cat(zero_points) if zero_points else None,
        global_scale=global_scale,
    )


def _candidates(
    low: Tensor,
    high: Tensor,
    grid: Grid,
    factors: Sequence[float],
    expand: float,
    global_scale: Tensor | None,
) -> QParams:
    """The parameters of every range times every factor: [*shape of low, factors].

    Under the scale rule `search` neighbouring powers of two instead, three whatever the factors.
    """
    if grid.scale_rule == SEARCH:
        largest = torch.maximum(-low, high).to(grid.dtype)
        scale = neighbours(largest, grid)
        return QParams(scale=scale, zero_point=None, global_scale=None)
    # rounded twice, as the reference does: the candidates are then the same ones
    low, high = ((end.float() * expand).to(grid.dtype).float()[..., None] for end in (low, high))
    tried = torch.tensor(factors, dtype=torch.float32, device=low.device)
    found = qparams_of(low * tried, high * tried, grid, global_scale=global_scale)
    if not grid.negative_scales:
        return found
    return replace(found, scale=torch.cat([found.scale, -found.scale], dim=-1))


def _best(
    values: Tensor, candidates: QParams, patterns: Tensor, norm: float, codes: Rounding
) -> QParams:
    """The best of the candidates [*shape, k] for values [*shape, n]."""
    scale, zero_point = candidates.scale, candidates.zero_point
    global_scale = candidates.global_scale
    effective = scale.float() if global_scale is None else scale.float() / global_scale
    zero = torch.zeros_like(effective) if zero_point is None else zero_point.float()
    shape, elements = values.shape[:-1], values.shape[-1]
    best = _argmin(
        values.reshape(-1, elements).float(),
        effective.reshape(-1, scale.shape[-1]),
        zero.reshape(-1, scale.shape[-1]),
        patterns,
        norm,
        codes,
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
    one, which = len(values) == 1, loops.loops_for(values)
    if which != "torch":
        triton = which == "triton"
        choose = _argmin_triton if triton else _argmin_of_one if one else _argmin_compiled
        return choose(values, scale, zero, patterns, norm, codes)
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


def _argmin_triton(
    values: Tensor, scale: Tensor, zero: Tensor, patterns: Tensor, norm: float, codes: Rounding
) -> Tensor:
    from stages.compress.observers.search_triton import best_scale

    if len(values) > 1 or values.shape[1] <= _CHUNK:
        return best_scale(values, scale, zero, patterns, norm, codes)[0]
    # the values of a single scale: chunk by chunk, side by side; padding has no weight
    filling = (0, -values.shape[1] % _CHUNK)
    chunks, weight = (pad(t, filling).reshape(-1, _CHUNK) for t in (values, patterns))
    scales, zeros = (t.expand(len(chunks), -1) for t in (scale, zero))
    _, errors = best_scale(chunks, scales, zeros, weight, norm, codes)
    return errors.double().sum(dim=0).argmin(dim=0, keepdim=True)
