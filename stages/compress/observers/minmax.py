"""Min-max observer: scales that cover the whole range of a weight."""

from __future__ import annotations

from torch import Tensor

from stages.compress.deprecated_args import takes_args
from stages.compress.grid import Grid, QParams
from stages.compress.observers.power_scale import SEARCH
from stages.compress.observers.qparams import global_scale_within, qparams_of
from stages.compress.observers.range import bounds
from stages.compress.observers.scale_search import search


@takes_args
def observe(
    weight: Tensor,
    grid: Grid,
    *,
    importance: Tensor | None = None,
    global_scale: Tensor | None = None,
) -> QParams:
    """Smallest scales that clip nothing, for a weight [out, in] (float32 or 16 bits).

    Equal to the bit to the reference's memoryless min-max when the weight's values fit the grid's
    ``dtype``, that of the checkpoint. ``importance`` plays no part. A tensor_group weight takes
    ``global_scale`` (float32 [1]) where several weights share one, else its own. Under the scale
    rule `search` the power of two of each block is the one with the least squared error.
    """
    if grid.scale_rule == SEARCH:
        return search(
            weight, grid, factors=(1.0,), norm=2.0, importance=None, global_scale=global_scale
        )
    low, high = bounds(weight, grid)
    if global_scale is None and grid.strategy == "tensor_group":
        global_scale = global_scale_within(low, high, grid.dtype)
    return qparams_of(low, high, grid, global_scale=global_scale)
