"""Observers that search for scales: mean squared error, importance matrix, Gram diagonal.

All take a weight [out, in], its grid, `importance` (float [in]; None where the observer has no use
for it) and a `global_scale` (float32 [1]) for tensor_group weights that share one. They differ from
llm-compressor's observers of these names in that errors are float32 sums over scales as they are
stored, and no candidate is skipped: its search runs in the weight's dtype, ignores the rounding of
FP8 scales, and stops once five steps brought no group of the whole weight forward.
"""

from __future__ import annotations

from torch import Tensor

from stages.compress.deprecated_args import takes_args
from stages.compress.grid import Grid, QParams
from stages.compress.observers.scale_search import search


@takes_args
def mse(
    weight: Tensor,
    weight_grid: Grid,
    *,
    importance: Tensor | None = None,
    global_scale: Tensor | None = None,
    maxshrink: float = 0.20,
    grid: int = 100,
    norm: float = 2.4,
    expand: float = 1.0,
) -> QParams:
    """The least L^`norm` error of the weight itself.

    Ranges shrink from `expand` times the whole by 1/`grid` at a time, at most by `maxshrink`.
    """
    del importance
    return search(
        weight,
        weight_grid,
        factors=_shrinking(maxshrink, grid)[:-1],
        norm=norm,
        importance=None,
        global_scale=global_scale,
        expand=expand,
    )


@takes_args
def imatrix(
    weight: Tensor,
    weight_grid: Grid,
    *,
    importance: Tensor | None,
    global_scale: Tensor | None = None,
    maxshrink: float = 0.95,
    grid: int = 20,
    norm: float = 3.0,
    expand: float = 1.0,
) -> QParams:
    """As :func:`mse`, each column weighted by the mean square of its input."""
    return search(
        weight,
        weight_grid,
        factors=_shrinking(maxshrink, grid),
        norm=norm,
        importance=_wanted(importance, "imatrix"),
        global_scale=global_scale,
        expand=expand,
    )


@takes_args
def gram(
    weight: Tensor,
    weight_grid: Grid,
    *,
    importance: Tensor | None,
    global_scale: Tensor | None = None,
    steps: int = 32,
    lowest: float = 0.5,
) -> QParams:
    """The least output error as the diagonal of the Gram matrix predicts it.

    For one row, E[((w - q) x)^2] = e H e^T with H = E[x x^T]; with errors of neighbouring columns
    uncorrelated that is sum_j H_jj e_j^2, separable by group. `importance` is H_jj, or for the
    observer `conditional` the squared diagonal of GPTQ's triangular factor: the part of a column's
    variance that columns solved after it cannot make up for. ``steps`` ranges are tried, down to
    ``lowest``. Float codes are also tried on wider ranges, up to 1.6 times: their steps are uneven,
    so a group may fit better below the top binade. Integer ranges start at 1.08, where a symmetric
    one clips nothing though it has one positive code less.
    """
    highest = 1.6 if weight_grid.type == "float" else 1.08
    step = (highest - lowest) / (steps - 1)
    return search(
        weight,
        weight_grid,
        factors=[highest - index * step for index in range(steps)],
        norm=2.0,
        importance=_wanted(importance, "gram"),
        global_scale=global_scale,
    )


def _shrinking(maxshrink: float, grid: int) -> list[float]:
    """1, 1 - 1/`grid`, ... down to 1 - `maxshrink`, two factors at least."""
    return [1 - step / grid for step in range(max(1, int(maxshrink * grid)) + 1)]


def _wanted(importance: Tensor | None, observer: str) -> Tensor:
    if importance is None:
        raise ValueError(f"observer {observer} needs a weight for every input channel")
    return importance
