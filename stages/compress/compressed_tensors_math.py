"""Arithmetic of compressed-tensors: scales, zero points and global scales, to the bit.

The one file of `stages.compress` that calls the library for numbers. Solvers and observers hand
over a :class:`~stages.compress.grid.Grid` and know nothing of its types.
"""

from __future__ import annotations

from functools import lru_cache

from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from torch import Tensor

from stages.compress.grid import Grid


def scale_and_zero_point(
    low: Tensor, high: Tensor, grid: Grid, global_scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of ranges [low, high], any shape; float32 scales under a global scale.

    low, high: in the dtype that the arithmetic is to run in. Scalars give tensors of shape [1].
    """
    scale, zero_point = calculate_qparams(low, high, _args_of(grid), global_scale=global_scale)
    return scale, zero_point


def global_scale_of_range(low: Tensor, high: Tensor) -> Tensor:
    """The global scale, float32 [1], under which the scales of NVFP4 groups fit E4M3."""
    scale: Tensor = generate_gparam(low, high)
    return scale


def quantization_args(grid: Grid) -> QuantizationArgs:
    """The grid as compressed-tensors' QuantizationArgs, a copy of the caller's own."""
    return _args_of(grid).model_copy()


@lru_cache(maxsize=64)
def _args_of(grid: Grid) -> QuantizationArgs:
    return QuantizationArgs(
        num_bits=grid.num_bits,
        type=grid.type,
        symmetric=grid.symmetric,
        strategy=grid.strategy,
        group_size=grid.group_size,
        block_structure=None if grid.block_structure is None else list(grid.block_structure),
        scale_dtype=grid.scale_dtype,
        zp_dtype=grid.zp_dtype,
    )
