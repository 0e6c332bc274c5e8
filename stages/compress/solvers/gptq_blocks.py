"""Column loops of GPTQ and of coordinate descent, for whichever device the arrays are on.

See :mod:`stages.compute.loops` for which run where; the plain torch ones are the reference. All
take the arrays of :mod:`stages.compress.solvers.gptq_arrays` and work in place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from stages.compress.grid import Rounding
from stages.compress.solvers import gptq_blocks_torch as blocks_torch
from stages.compress.solvers.gptq_arrays import Columns, Descent, Params, Sweep
from stages.compute import loops
from stages.compute.row_tiles import even_tiles, row_tiles

TILE = 192  # rows that one thread solves at a time
DEVICE_BYTES = 2 << 30  # of a GPU's memory for the rows that it solves at a time
COPIES = 8  # of these rows in float32 that are alive at once


def by_tiles(weight: Tensor, tile: Callable[[int, int], None]) -> None:
    """Call ``tile(start, stop)`` for tiles of rows of a weight [out, in], which bound the memory.

    On a CPU threads solve tiles side by side, elsewhere one follows the other.
    """
    if loops.loops_for(weight) == "compiled":
        row_tiles(weight.shape[0], TILE, tile)
    else:
        even_tiles(weight.shape[0], DEVICE_BYTES // (4 * COPIES * weight.shape[1]), tile)


def nearest_plane_block(
    columns: Columns[Tensor], M: Tensor, params: Params[Tensor], codes: Rounding
) -> None:
    """Quantize a block of columns one after the other; M [columns, columns], upper triangular."""
    which = loops.loops_for(columns.W)
    if which == "torch":
        blocks_torch.nearest_plane_block(columns, M, params, codes)
        return
    if which == "triton":
        from stages.compress.solvers import gptq_triton

        gptq_triton.nearest_plane_block(columns, M, params, codes)
        return
    from stages.compress.grid_kernels import as_float32
    from stages.compress.solvers import gptq_kernels as kernels

    kernels.nearest_plane_block(_arrays(columns), M.numpy(), _arrays(params), as_float32(codes))


def descend_block(
    block: Descent[Tensor],
    H: Tensor,
    params: Params[Tensor],
    sweep: Sweep,
    codes: Rounding,
    scales: Rounding,
) -> None:
    """Refit the scales and the codes of a block of columns; H [columns, columns]."""
    which = loops.loops_for(block.code)
    if which == "torch":
        blocks_torch.descend_block(block, H, params, sweep, codes, scales)
        return
    if which == "triton":
        from stages.compress.solvers import gptq_triton

        gptq_triton.descend_block(block, H, params, sweep, codes, scales)
        return
    from stages.compress.grid_kernels import as_float32
    from stages.compress.solvers import gptq_kernels as kernels

    kernels.descend_block(
        _arrays(block),
        H.numpy(),
        _arrays(params),
        sweep,
        as_float32(codes),
        as_float32(scales),
    )


def _arrays(tensors: Any) -> Any:
    """A named tuple with the memory of its tensors as NumPy arrays; an empty one for None."""
    return tensors._make(_array(t) for t in tensors)


def _array(value: Any) -> Any:
    if value is None:
        return np.empty((0, 0), np.float32)
    return value.numpy() if isinstance(value, Tensor) else value
