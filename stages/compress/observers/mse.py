"""The observers that search: which ranges they try, and what they call an error.

All take a weight [out, in], its QuantizationArgs, `importance` (float [in]; None where the observer
has no use for it), a `global_scale` (float32 [1]) for tensor_group weights that share one, and the
`dtype` that plain scales are stored in. They differ from llm-compressor's observers of these names
in that errors are float32 sums over scales as they are stored, and no candidate is skipped: its
search runs in the weight's dtype, ignores the rounding of FP8 scales, and stops once five steps
brought no group of the whole weight forward.
"""

from __future__ import annotations

import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.observers.scale_search import search


def mse(
    weight: Tensor,
    args: QuantizationArgs,
    *,
    importance: Tensor | None = None,
    global_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
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
        args,
        factors=_shrinking(maxshrink, grid)[:-1],
        norm=norm,
        importance=None,
        global_scale=global_scale,
        dtype=dtype,
        expand=expand,
    )


def imatrix(
    weight: Tensor,
    args: QuantizationArgs,
    *,
    importance: Tensor | None,
    global_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
    maxshrink: float = 0.95,
    grid: int = 20,
    norm: float = 3.0,
    expand: float = 1.0,
) -> QParams:
    """As :func:`mse`, each column weighted by the mean square of its input."""
    return search(
        weight,
        args,
        factors=_shrinking(maxshrink, grid),
        norm=norm,
        importance=_wanted(importance, "imatrix"),
        global_scale=global_scale,
        dtype=dtype,
        expand=expand,
    )


def gram(
    weight: Tensor,
    args: QuantizationArgs,
    *,
    importance: Tensor | None,
    global_scale: Tensor | None = None,
    dtype: torch.dtype = torch.bfloat16,
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
    highest = 1.6 if grid_of(args, dtype).type == "float" else 1.08
    step = (highest - lowest) / (steps - 1)
    return search(
        weight,
        args,
        factors=[highest - index * step for index in range(steps)],
        norm=2.0,
        importance=_wanted(importance, "gram"),
        global_scale=global_scale,
        dtype=dtype,
    )


def _shrinking(maxshrink: float, grid: int) -> list[float]:
    """1, 1 - 1/`grid`, ... down to 1 - `maxshrink`, two factors at least."""
    return [1 - step / grid for step in range(max(1, int(maxshrink * grid)) + 1)]


def _wanted(importance: Tensor | None, observer: str) -> Tensor:
    if importance is None:
        raise ValueError(f"observer {observer} needs a weight for every input channel")
    return importance
