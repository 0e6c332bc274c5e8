"""GPTQ (arXiv:2210.17323) as a walk along one triangular factor, then descent in the full metric.

Notation: H = X X^T [in, in] damped, H = M M^T with M upper triangular, W the weight, Q its
quantized values, E = W - Q. The error is tr(E H E^T) = |E M|^2, and column k of E M is
sum_{j<k} E_j M_jk + E_k M_kk, so with columns 0..k-1 fixed the best target for column k is
W_k + (sum_{j<k} E_j M_jk) / M_kk. That is GPTQ's update (M^-1 is the paper's Cholesky factor of
H^-1) and Babai's nearest plane. ``carried`` holds the sums, in blocks, so that all but the
products within a block are matrix products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stages.compress.deprecated_args import takes_args
from stages.compress.grid import (
    ROW_STRATEGIES,
    Grid,
    QParams,
    Quantized,
    column_scale,
    expand,
    round_to,
)
from stages.compress.observers.catalog import OBSERVERS, Observe
from stages.compress.solvers import gptq_blocks as blocks
from stages.compress.solvers.cholesky import Damped, damped, upper_factor
from stages.compress.solvers.coordinate_descent import descend
from stages.compress.solvers.numerical_error import NumericalError, all_finite
from stages.compute.row_tiles import row_tiles

_TILE = 192  # rows that one thread solves at a time
_PANEL = 256


@takes_args
def gptq(
    weight: Tensor,
    H: Tensor,
    grid: Grid,
    *,
    block_size: int = 128,
    dampening_frac: float = 0.01,
    actorder: str = "static",
    observer: str | Observe = "gram",
    observer_options: Mapping[str, Any] | None = None,
    refit: int = 1,
    descent: int = 1,
    global_scale: Tensor | None = None,
    energy: Tensor | None = None,
) -> Quantized:
    """Codes (and scales) for ``weight`` [out, in] that minimise tr((W-Q) H (W-Q)^T).

    H: float32 [in, in], sum or mean of x x^T over tokens; its scale does not matter.
    actorder: "static" solves columns by falling H_jj (groups stay as they are), "none" in order.
    observer: how scales are first chosen, by a name of the catalog or a function like those in it.
    refit, descent: sweeps of scale refits and of coordinate descent over the result; see
    :mod:`stages.compress.solvers.coordinate_descent`. global_scale: float32 [1], where
    tensor_group weights share one. energy: float32 [out], the second column of `losses` of an
    earlier solution for this weight, H, damping and order.
    Rows are independent: stacked weights give what separate calls give (strategies channel, group
    and tensor_group). Raises NumericalError when the damped H is not positive definite or anything
    is not finite, ValueError for an unknown name.
    """
    if actorder not in ("static", "none"):
        raise ValueError(f"actorder is {actorder!r}: choose static or none")
    metric = damped(H, dampening_frac)
    order = (
        torch.argsort(metric.diagonal, descending=True, stable=True)
        if actorder == "static"
        else torch.arange(H.shape[0], device=H.device)
    )
    factor = upper_factor(metric, order)
    observe = OBSERVERS[observer] if isinstance(observer, str) else observer
    qparams = observe(
        weight,
        grid,
        importance=_importance(observer, H, factor, order),
        global_scale=global_scale,
        **(observer_options or {}),
    )
    scale, zero = expand(qparams, grid, weight.shape[0])
    column = column_scale(grid, weight.shape[1], weight.device)
    problem = _Problem(
        grid=grid,
        metric=metric,
        order=order,
        factor=factor,
        column=column,
        block_size=block_size,
        multiplier=1.0 if qparams.global_scale is None else float(qparams.global_scale),
        refit=refit if grid.strategy in ROW_STRATEGIES else 0,
        descent=descent,
    )
    solution = torch.empty(weight.shape, dtype=torch.float32, device=weight.device)
    losses = torch.empty(weight.shape[0], 2, device=weight.device)
    scale = scale.contiguous().clone()

    def solve(start: int, stop: int) -> None:
        rows = slice(start, stop)
        known = None if energy is None else energy[rows]
        chosen = problem.solve(weight[rows], scale[rows], zero[rows], known)
        solution[rows], scale[rows], losses[rows] = chosen

    if weight.device.type == "cpu":
        row_tiles(weight.shape[0], _TILE, solve)
    else:
        solve(0, weight.shape[0])
    if not all_finite(losses):
        raise _not_finite(weight)
    return Quantized(
        weight=solution,
        scale=_stored(scale, qparams, problem),
        zero_point=qparams.zero_point,
        global_scale=qparams.global_scale,
        losses=losses,
    )


def _importance(observer: str | Observe, H: Tensor, factor: Tensor, order: Tensor) -> Tensor:
    """Weight [in] of each column's squared error: H_kk, or M_kk^2 for the conditional observer.

    tr(E H E^T) is the sum of M_kk^2 (target_k - q_k)^2: what later columns can make up for does
    not count in it.
    """
    if observer != "conditional":
        return H.diagonal()
    paid = torch.empty_like(factor.diagonal())
    paid[order] = factor.diagonal().square()
    return paid


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """Everything that the rows of one weight share."""

    grid: Grid
    metric: Damped
    order: Tensor
    factor: Tensor
    column: Tensor
    block_size: int
    multiplier: float
    refit: int
    descent: int

    @property
    def sweeps(self) -> int:
        return max(self.refit, self.descent)

    def solve(
        self, weight: Tensor, scale: Tensor, zero: Tensor, energy: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of some rows: the result [rows, in], effective scales [rows, groups], losses."""
        # copies always: the transpose of one row is contiguous, and columns and scales are changed
        columns = torch.empty(weight.T.shape, device=weight.device).copy_(weight.T)
        s, z = scale.T.clone(memory_format=torch.contiguous_format), zero.T.contiguous()
        w = columns.index_select(0, self.order)
        energy = self._energy(w) if energy is None else energy
        code, gradient, error = self._nearest_plane(w, s, z)
        if self.sweeps:
            error += descend(
                code,
                gradient,
                self.metric,
                self.column,
                s,
                z,
                self.grid,
                refit=self.refit,
                descent=self.descent,
                multiplier=self.multiplier,
                block_size=self.block_size,
            )
        q = s.index_select(0, self.column).mul_(code)
        lost = columns.sub_(q).square_().sum(dim=0)
        losses = torch.stack([error - self.metric.amount * lost, energy], dim=1)
        return q.T, s.T, losses.clamp_(min=0.0)

    def _energy(self, w: Tensor) -> Tensor:
        """w H w^T [rows] without the damping, for w [in, rows] in solving order."""
        total = w.square().sum(dim=0).mul_(-self.metric.amount)
        for start in range(0, w.shape[0], _PANEL):
            stop = min(start + _PANEL, w.shape[0])
            product = self.factor[:stop, start:stop].T @ w[:stop]
            total += product.square_().sum(dim=0)
        return total

    def _nearest_plane(self, w: Tensor, s: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes and the gradient (W - Q) H, transposed and in the original column order.

        The third is e H e^T [rows] with the damping.

        w: weight [in, rows] in solving order; s, z [groups, rows].
        """
        code, error, carried = torch.empty_like(w), torch.empty_like(w), torch.zeros_like(w)
        gradient = torch.zeros_like(w)
        group = self.column[self.order]
        for start in range(0, w.shape[0], self.block_size):
            stop = min(start + self.block_size, w.shape[0])
            part = slice(start, stop)
            blocks.nearest_plane_block(
                w[part],
                carried[part],
                self.factor[part, part].contiguous(),
                group[part],
                s,
                z,
                code[part],
                error[part],
                self.grid.codes,
            )
            carried[stop:].addmm_(self.factor[part, stop:].T, error[part])
            if self.sweeps:
                # E H = (E M) M^T, and M is upper triangular: columns after `stop` do not feel this
                gradient[:stop].addmm_(self.factor[:stop, part], carried[part])
        back = torch.argsort(self.order)
        loss = carried.square_().sum(dim=0)
        return code.index_select(0, back), gradient.index_select(0, back), loss


def _stored(scale: Tensor, before: QParams, problem: _Problem) -> Tensor:
    """Effective scales as the checkpoint stores them."""
    if not problem.refit:
        return before.scale
    stored = round_to(scale * problem.multiplier, problem.grid.scales).to(before.scale.dtype)
    return stored.reshape(before.scale.shape)


def _not_finite(weight: Tensor) -> NumericalError:
    if not all_finite(weight):
        return NumericalError(
            name="weight",
            reason="the weight has non-finite entries",
            remedy="the checkpoint is damaged: fetch it again, or leave the module out",
        )
    return NumericalError(
        name="weight",
        reason="the solution has non-finite entries",
        remedy="raise dampening_frac, or look at the scales of this weight",
    )
