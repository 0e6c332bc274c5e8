"""Output error of a weight and its inputs once both are scaled by channel and rounded.

A weight W [out, in] reads inputs x, of which X [n, in] are rows. Divide the inputs by s [in],
multiply the columns by it, and quantize both: what comes out differs from W x by

    E x + (W - E) e,   E = W - Q(W s) / s,   e = x - s Qa(x / s).

Over all inputs the first part sums to tr(E G E^T), G = sum of x x^T, which needs no forward (the
objective of AWQ, arXiv:2306.00978, for these Linears). The second, and what both have in common,
is known on the rows of a sample and counts for as many as were seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.compress.grid import ROW_STRATEGIES, Grid, QParams, expand
from stages.compress.observers.qparams import global_scale_within
from stages.compress.solvers.rtn import dequantize, nearest
from stages.compute import loops
from stages.compute.row_tiles import row_tiles
from stages.formats.row_blocks import share

PANEL = 256
"""Columns of a product with the Gram matrix; wider ones on a GPU."""
TILE, MOST = 1 << 19, 1024
"""Elements of a tile of rows on a CPU, and its most rows."""
DEVICE_TILE = 1 << 24
"""Elements of a tile on a GPU: a handful of such tensors in float32 is held at a time."""

Observe = Callable[..., QParams]


@dataclass(frozen=True, kw_only=True, slots=True)
class InputErrors:
    """Rows X [n, in] of the inputs, float32, and their rounding errors e [n, in] under a candidate.

    `weight`: how many of the inputs each row stands for.
    """

    rows: Tensor
    errors: Tensor
    weight: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Factors s [in], float32, and the rounding errors of the inputs that go with them, if any."""

    s: Tensor
    inputs: InputErrors | None = None


def folded(G: Tensor) -> Tensor:
    """The Gram matrix [in, in] with all that is below its diagonal blocks added above them.

    A quadratic form of it takes half of the products (:func:`quadratic_form`).
    """
    U = G.clone()
    step = _panel(G)
    for start in range(0, len(G), step):
        stop = min(start + step, len(G))
        U[:start, start:stop] *= 2
        U[stop:, start:stop] = 0
    return U


def quadratic_form(E: Tensor, U: Tensor) -> Tensor:
    """The sum over rows of e G e^T: float64 []; E [rows, in], U [in, in] from :func:`folded`."""
    total = torch.zeros((), dtype=torch.float64, device=E.device)
    step = _panel(U)
    for start in range(0, len(U), step):
        stop = min(start + step, len(U))
        part = E[:, :stop] @ U[:stop, start:stop]
        total += part.mul_(E[:, start:stop]).sum(dim=1).double().sum()
    return total


def _panel(G: Tensor) -> int:
    return PANEL if G.is_cpu else 8 * PANEL


def losses(
    weight: Tensor,
    U: Tensor,
    candidates: Sequence[Candidate],
    grid: Grid,
    observe: Observe,
    *,
    importance: Tensor | None = None,
) -> Tensor:
    """The output error of every candidate, summed over the rows of a weight: float64 [n].

    weight: float32 [out, in], of modules that share a global scale where the grid has one. U:
    :func:`folded` of the Gram matrix of the inputs as they are. observe: the observer; importance
    [in]: the diagonal of the Gram matrix for observers that want one. Candidates take turns, a tile
    of rows at a time, on the threads that torch has; the bytes do not depend on how many.
    """
    columns = weight.abs().amax(dim=0) if grid.strategy == "tensor_group" else None
    work = _Work(
        weight=weight,
        columns=columns,
        U=U,
        grid=grid,
        observe=observe,
        importance=importance,
    )
    tiles = _tiles(weight, grid)
    found = torch.zeros(len(candidates), len(tiles), dtype=torch.float64)

    def one(job: int, stop: int) -> None:
        del stop
        index, tile = divmod(job, len(tiles))
        found[index, tile] = work.loss(candidates[index], tiles[tile])

    _run(len(candidates) * len(tiles), one, weight)
    return found.sum(dim=1)


def energy(weight: Tensor, U: Tensor) -> float:
    """tr(W G W^T): the squared outputs of a weight [out, in] without a bias."""
    step = _most(weight)
    found = torch.zeros(-(-len(weight) // step), dtype=torch.float64)

    def one(job: int, stop: int) -> None:
        del stop
        found[job] = quadratic_form(weight[job * step : (job + 1) * step], U)

    _run(len(found), one, weight)
    return float(found.sum())


def _run(jobs: int, one: Callable[[int, int], None], weight: Tensor) -> None:
    if weight.is_cpu:
        row_tiles(jobs, 1, one)
    else:
        for job in range(jobs):
            one(job, job + 1)


def rounding_errors(
    weight: Tensor, scaled: Tensor, s: Tensor, qparams: QParams, grid: Grid
) -> Tensor:
    """W - Q(W s) / s, float32 [rows, in], under given scales; `scaled` is W s."""
    if loops.loops_for(weight) != "compiled":
        _, values = nearest(scaled, qparams, grid)
        return weight - dequantize(values, qparams, grid).div_(s)
    from stages.compress.grid_kernels import as_float32
    from stages.compress.transforms.rounding_kernels import errors_of_rows

    scale, zero = expand(qparams, grid, len(weight))
    found = torch.empty_like(weight)
    errors_of_rows(
        weight.contiguous().numpy(),
        s.contiguous().numpy(),
        scale.contiguous().numpy(),
        zero.contiguous().numpy(),
        grid.width(weight.shape[1]),
        as_float32(grid.codes),
        grid.type == "int",
        found.numpy(),
    )
    return found


def _tiles(weight: Tensor, grid: Grid) -> list[slice]:
    """Rows that are looked at together: all, where a scale may span any of them."""
    rows = len(weight)
    if grid.strategy not in ROW_STRATEGIES:
        return [slice(0, rows)]
    most = _most(weight)
    return [slice(start, min(start + most, rows)) for start in range(0, rows, most)]


def _most(weight: Tensor) -> int:
    columns = weight.shape[1]
    if not weight.is_cpu:
        return max(1, DEVICE_TILE // columns)
    return max(64, min(MOST, TILE // columns))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Work:
    """What all candidates have in common; `columns` [in]: the largest |w| of every column."""

    weight: Tensor
    columns: Tensor | None
    U: Tensor
    grid: Grid
    observe: Observe
    importance: Tensor | None

    def loss(self, candidate: Candidate, rows: slice) -> float:
        """The output error of some rows, whose scales are no other rows'."""
        s, own, grid, importance = candidate.s, self.weight[rows], self.grid, self.importance
        scaled = own * s
        qparams = self.observe(
            scaled,
            grid,
            importance=None if importance is None else importance / (s * s),
            global_scale=self._global_scale(s),
        )
        total = torch.zeros((), dtype=torch.float64, device=own.device)
        step = len(own) if grid.strategy in ROW_STRATEGIES else _step(own, grid)
        for start in range(0, len(own), step):
            part = slice(start, min(start + step, len(own)))
            total += self._rounded(own[part], scaled[part], _of(qparams, grid, part), candidate)
        return float(total)

    def _rounded(
        self, own: Tensor, scaled: Tensor, qparams: QParams, candidate: Candidate
    ) -> Tensor:
        error = rounding_errors(own, scaled, candidate.s, qparams, self.grid)
        total = quadratic_form(error, self.U)
        inputs = candidate.inputs
        if inputs is not None:
            passed_on = (own - error) @ inputs.errors.T
            both = passed_on + 2 * (error @ inputs.rows.T)
            total += inputs.weight * (both * passed_on).sum(dim=1).double().sum()
        return total

    def _global_scale(self, s: Tensor) -> Tensor | None:
        """The one that the scaled weight has as a whole, of whose rows a tile has a part."""
        if self.columns is None:
            return None
        largest = (self.columns * s).amax()
        return global_scale_within(-largest, largest, self.grid.dtype)


def _step(weight: Tensor, grid: Grid) -> int:
    """Rows of a part whose scales were found with all others: a multiple of those of a block."""
    height = grid.block_structure[0] if grid.block_structure is not None else 1
    most = TILE if weight.is_cpu else DEVICE_TILE
    return max(1, most // (height * weight.shape[1])) * height


def _of(qparams: QParams, grid: Grid, rows: slice) -> QParams:
    zero_point = qparams.zero_point
    return QParams(
        scale=share(qparams.scale, grid, rows.start, rows.stop),
        zero_point=None if zero_point is None else share(zero_point, grid, rows.start, rows.stop),
        global_scale=qparams.global_scale,
    )
