"""The triangular factor that GPTQ walks along."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.solvers.errors import NumericalError
from stages.compress.solvers.tiles import tile_pool

_PANEL = 256
_SMALL = 1024  # up to here one thread is done before several have shared the work


def damped(H: Tensor, dampening_frac: float) -> Tensor:
    """H + dampening_frac * mean(diag H) I, symmetrised; float32 [n, n].

    Raises NumericalError when H is not finite or has no positive diagonal entry.
    """
    if not bool(torch.isfinite(H).all()):
        raise NumericalError(
            name="H",
            reason="the Gram matrix has non-finite entries",
            remedy="look at the activations of this layer; calibrate in float32 or bfloat16",
        )
    mean = H.diagonal().mean()
    if not bool(mean > 0):
        raise NumericalError(
            name="H",
            reason="no input channel was ever active in calibration",
            remedy="calibrate with more or other samples, or leave the module out",
        )
    result = H.float().clone()
    result.diagonal().add_(dampening_frac * mean)
    return result


def upper_factor(H: Tensor, order: Tensor) -> Tensor:
    """Upper triangular M, float32 [n, n], with H[order][:, order] = M M^T: Cholesky from the end.

    M^-1 is the upper Cholesky factor of H^-1 that the GPTQ paper uses (arXiv:2210.17323, 3.3);
    walking along M itself needs neither inverse. Raises NumericalError when H is not positive
    definite in float32.
    """
    backwards = order.flip(0)
    reverse = H.index_select(0, backwards).index_select(1, backwards)
    lower = _cholesky_cpu(reverse) if H.device.type == "cpu" else _cholesky(reverse)
    return lower.flip(0, 1).contiguous()


def _cholesky(a: Tensor) -> Tensor:
    lower: Tensor
    lower, info = torch.linalg.cholesky_ex(a)
    if int(info) > 0 or not bool(torch.isfinite(lower).all()):
        raise NumericalError(
            name="H",
            reason="the damped Gram matrix is not positive definite in float32",
            remedy="raise dampening_frac, or calibrate with more tokens than input channels",
        )
    return lower


def _cholesky_cpu(a: Tensor) -> Tensor:
    """Blocked Cholesky, in place of ``a``; each block by one thread: no sum depends on threads."""
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
