"""Descent on tr(E H E^T) from a solution, E = W - Q: one scale or one code at a time.

With the gradient R = E H at hand, both steps have closed forms. Scale of a group with codes v
(zero elsewhere): s <- s + (R . v) / (v H v), rounded as it is stored, taken only if that lowers
the error. Code of column k: the grid point nearest to q_k + R_k / H_kk, which is the best of the
whole grid. No step raises the error. Steps within a block of columns update that block's gradient
at once and all others by one matrix product (Gauss-Seidel; the order of steps is the columns').
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.grid import Grid, round_to
from stages.compress.solvers import blocks


def descend(
    code: Tensor,
    gradient: Tensor,
    H: Tensor,
    column: Tensor,
    scale: Tensor,
    zero: Tensor,
    grid: Grid,
    *,
    refit: int,
    descent: int,
    multiplier: float,
    block_size: int,
) -> None:
    """``refit`` sweeps with scale steps, ``descent`` sweeps with code steps, in place.

    code (minus zero point) and gradient [in, rows], H [in, in], column int64 [in] (each column's
    scale), scale and zero [scales, rows] (effective), multiplier the global scale or 1; all
    contiguous float32.
    """
    width = grid.width(H.shape[0])
    step = width * max(1, block_size // width) if width <= 4 * block_size else block_size
    whole = width <= step
    starts = range(0, H.shape[0], step)
    diagonal = [H[i : i + step, i : i + step].contiguous() for i in starts]
    for sweep in range(max(refit, descent)):
        refits = sweep < refit
        if refits and not whole:
            _refit_rows(code, gradient, H, column, scale, grid, multiplier)
        if not (refits and whole) and sweep >= descent:
            continue
        for index, start in enumerate(starts):
            part = slice(start, start + step)
            before = code[part] * scale[column[part]]
            local = gradient[part].clone()
            blocks.descend_block(
                code[part],
                local,
                diagonal[index],
                column[part],
                scale,
                zero,
                refit=refits and whole,
                descend=sweep < descent,
                multiplier=multiplier,
                codes=grid.codes,
                scales=grid.scales,
            )
            change = code[part] * scale[column[part]] - before
            gradient.addmm_(H[:, part], change, alpha=-1)


def _refit_rows(
    code: Tensor,
    gradient: Tensor,
    H: Tensor,
    column: Tensor,
    scale: Tensor,
    grid: Grid,
    multiplier: float,
) -> None:
    """The scale step for groups too wide for a block, one group at a time."""
    for g in range(scale.shape[0]):
        part = column == g
        v = code[part]
        product = H[:, part] @ v
        upper, lower = (v * gradient[part]).sum(dim=0), (v * product[part]).sum(dim=0)
        wanted = scale[g] + torch.where(lower > 0, upper / lower, 0.0)
        new = round_to(wanted * multiplier, grid.scales) / multiplier
        change = new - scale[g]
        change = torch.where(change * (change * lower - 2 * upper) < 0, change, 0.0)
        scale[g] = torch.where(change != 0, new, scale[g])
        gradient -= product * change
