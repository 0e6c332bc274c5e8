"""Coordinate descent on the GPTQ objective tr(E H E^T), E = W - Q: one scale or code at a time.

With the gradient R = E H at hand, both steps have closed forms. Scale of a group with codes v
(zero elsewhere): s <- s + (R . v) / (v H v), rounded as it is stored, taken only if that lowers
the error. Code of column k: the grid point nearest to q_k + R_k / H_kk, which is the best of the
whole grid. No step raises the error. Steps within a block of columns update that block's gradient
at once and all others by one matrix product (Gauss-Seidel; the order of steps is the columns').
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.grid import Grid, QParams, round_scale
from stages.compress.observers.range import by_scale
from stages.compress.solvers.cholesky import Damped
from stages.compress.solvers.gptq_arrays import Descent, Params, Sweep
from stages.compress.solvers.gptq_blocks import descend_block
from stages.compress.solvers.products import add_product, product


def descend(
    code: Tensor,
    gradient: Tensor,
    params: Params[Tensor],
    metric: Damped,
    grid: Grid,
    *,
    refit: int,
    descent: int,
    multiplier: float,
    block_size: int,
    tf32: bool = False,
    keep: Tensor | None = None,
) -> Tensor:
    """``refit`` sweeps with scale steps, ``descent`` sweeps with code steps, in place.

    code (minus zero point), gradient [in, rows]; params of all columns, whose scale is changed;
    metric [in, in]; multiplier the global scale or 1; all contiguous float32. tf32: multiply blocks
    by each other in TF32, with which a step may raise the error by its rounding. keep [in, rows]: 0
    for codes that are 0 and stay so. Gives by how much every row's E H E^T has changed, [rows].
    The gradient is spent: its columns before the last block are not those of the result.
    """
    H = metric.H
    width = params.width
    step = width * max(1, block_size // width) if width <= 4 * block_size else block_size
    whole = width <= step
    starts = range(0, H.shape[0], step)
    diagonal = [metric.block(slice(i, i + step)) for i in starts]
    gained = torch.zeros_like(code[0])
    change = torch.empty_like(code[:step])
    sweeps = max(refit, descent)
    for sweep in range(sweeps):
        refits, last = sweep < refit, sweep == sweeps - 1
        if refits and not whole:
            gained += _refit_rows(code, gradient, params, metric, grid, multiplier, tf32)
        if not (refits and whole) and sweep >= descent:
            continue
        for index, start in enumerate(starts):
            part = slice(start, start + step)
            moved = change[: H.shape[0] - start]
            descend_block(
                Descent(
                    code[part], gradient[part], moved, gained, None if keep is None else keep[part]
                ),
                diagonal[index],
                params.of(params.group[part]),
                Sweep(refits and whole, sweep < descent, last, multiplier),
                grid.codes,
                grid.scales,
            )
            # in the last sweep nothing looks at columns that are done
            for rest in (slice(0, 0 if last else start), slice(start + step, None)):
                add_product(gradient[rest], H[rest, part], moved, alpha=-1, tf32=tf32)
    return gained


def _refit_rows(
    code: Tensor,
    gradient: Tensor,
    params: Params[Tensor],
    metric: Damped,
    grid: Grid,
    multiplier: float,
    tf32: bool,
) -> Tensor:
    """The scale step for groups too wide for a block, one group at a time; gives what it gained."""
    gained, width, scale = torch.zeros_like(code[0]), params.width, params.scale
    for g in range(scale.shape[0]):
        part = slice(g * width, (g + 1) * width)
        v = code[part]
        Hv = product(metric.columns(part), v, tf32=tf32)
        upper, lower = (v * gradient[part]).sum(dim=0), (v * Hv[part]).sum(dim=0)
        wanted = scale[g] + torch.where(lower > 0, upper / lower, 0.0)
        new = round_scale(wanted * multiplier, scale[g], grid.scales) / multiplier
        change = new - scale[g]
        gain = change * (change * lower - 2 * upper)
        change = torch.where(gain < 0, change, 0.0)
        gained += gain.clamp(max=0.0)
        scale[g] = torch.where(change != 0, new, scale[g])
        gradient -= Hv * change
    return gained


def stored_scale(
    scale: Tensor, Q: Tensor, qparams: QParams, grid: Grid, multiplier: float
) -> Tensor:
    """Refitted effective scales [rows, groups] as the checkpoint stores them.

    One that was too small for a refit (below the normal numbers of float16) and has entries of Q
    other than zero is stored as the codes were chosen. qparams: those before the refit; multiplier:
    their global scale, or 1.
    """
    stored = round_scale(scale * multiplier, scale, grid.scales)
    if qparams.global_scale is None and not torch.equal(stored, scale):
        stored = torch.where(by_scale(Q, grid).any(dim=-1), scale, stored)
    return stored.to(qparams.scale.dtype).reshape(qparams.scale.shape)
