"""Blocked Cholesky of the damped Hessian: the triangular factor that GPTQ walks along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.compress.solvers.numerical_error import NumericalError, all_finite
from stages.compute.row_tiles import tile_pool

_PANEL = 256
_SMALL = 1024  # up to here one thread is done before several have shared the work


@dataclass(frozen=True, kw_only=True, slots=True)
class Damped:
    """The damped Hessian, H + lambda I, without a copy of H.

    H: float32 [n, n] as it was measured; diagonal: float32 [n], what stands in for its own;
    amount: the mean of what was added.
    """

    H: Tensor
    diagonal: Tensor
    amount: float

    def columns(self, part: slice) -> Tensor:
        """Some columns [n, .], contiguous."""
        found = self.H[:, part].clone(memory_format=torch.contiguous_format)
        found[part].diagonal().copy_(self.diagonal[part])
        return found

    def block(self, part: slice) -> Tensor:
        """A block about the diagonal, contiguous."""
        found = self.H[part, part].clone(memory_format=torch.contiguous_format)
        found.diagonal().copy_(self.diagonal[part])
        return found


def damped(H: Tensor, dampening_frac: float) -> Damped:
    """H + dampening_frac * mean(diag H) I, for float32 H [n, n].

    Raises NumericalError when H is not finite or has no positive diagonal entry.
    """
    if not all_finite(H):
        raise NumericalError(
            name="H",
            reason="the Gram matrix has non-finite entries",
            remedy="look at the activations of this layer; calibrate in float32 or bfloat16",
        )
    own = H.diagonal()
    mean = own.mean()
    if not bool(mean > 0):
        raise NumericalError(
            name="H",
            reason="no input channel was ever active in calibration",
            remedy="calibrate with more or other samples, or leave the module out",
        )
    raised = own + dampening_frac * mean
    return Damped(H=H, diagonal=raised, amount=float((raised - own).mean()))


def upper_factor(metric: Damped, order: Tensor) -> Tensor:
    """Upper triangular M, float32 [n, n], with H[order][:, order] = M M^T: Cholesky from the end.

    H is the damped one. M^-1 is the upper Cholesky factor of H^-1 that the GPTQ paper uses
    (arXiv:2210.17323, 3.3); walking along M itself needs neither inverse. Raises NumericalError
    when H is not positive definite in float32.
    """
    backwards = order.flip(0)
    if metric.H.device.type == "cpu":
        lower = _cholesky_cpu(_lower_in_order(metric, backwards))
    else:
        reverse = metric.H.index_select(0, backwards).index_select(1, backwards)
        reverse.diagonal().copy_(metric.diagonal.index_select(0, backwards))
        lower = _cholesky(reverse)
    return lower.flip(0, 1).contiguous()  # LAPACK gives columns


def _lower_in_order(metric: Damped, order: Tensor) -> Tensor:
    """The lower triangle of H[order][:, order]; what lies above it is whatever was there."""
    from stages.compress.solvers.gptq_kernels import lower_in_order

    found = torch.empty_like(metric.H, memory_format=torch.contiguous_format)
    lower_in_order(metric.H.numpy(), metric.diagonal.numpy(), order.numpy(), found.numpy())
    return found


def _cholesky(a: Tensor) -> Tensor:
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(a)
    if int(info) > 0 or not all_finite(lower):
        raise NumericalError(
            name="H",
            reason="the damped Gram matrix is not positive definite in float32",
            remedy="raise dampening_frac, or calibrate with more tokens than input channels",
        )
    return lower


def _cholesky_cpu(a: Tensor) -> Tensor:
    """Blocked Cholesky of the lower triangle, in place; each block by one thread.

    So no sum depends on how many there are.
    """
    n = a.shape[0]
    with tile_pool() as pool:
        if n <= _SMALL:
            return pool.submit(_cholesky, a).result()
        for start in range(0, n, _PANEL):
            stop = min(start + _PANEL, n)
            panel = slice(start, stop)

            def update(first: int, panel: slice = panel, start: int = start) -> None:
                rows = slice(first, min(first + _PANEL, n))
                a[rows, panel].addmm_(a[rows, :start], a[panel, :start].T, alpha=-1)

            if start:
                list(pool.map(update, range(start, n, _PANEL)))
            pivot = pool.submit(_cholesky, a[panel, panel]).result()
            a[panel, panel] = pivot

            def divide(first: int, panel: slice = panel, pivot: Tensor = pivot) -> None:
                rows = slice(first, min(first + _PANEL, n))
                a[rows, panel] = torch.linalg.solve_triangular(
                    pivot.T, a[rows, panel], upper=True, left=False
                )

            list(pool.map(divide, range(stop, n, _PANEL)))
            a[panel, stop:] = 0.0
    return a
