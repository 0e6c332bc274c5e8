"""The column loops on whichever device the tensors are: compiled on a CPU, torch elsewhere."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stages.compress.grid import Rounding
from stages.compress.solvers import gptq_blocks_torch as blocks_torch


def nearest_plane_block(
    w: Tensor,
    carried: Tensor,
    factor: Tensor,
    group: Tensor,
    scale: Tensor,
    zero: Tensor,
    code: Tensor,
    error: Tensor,
    codes: Rounding,
) -> None:
    """One block of GPTQ in place; shapes as in the kernels, all contiguous float32."""
    if w.device.type != "cpu":
        blocks_torch.nearest_plane_block(w, carried, factor, group, scale, zero, code, error, codes)
        return
    from stages.compress.solvers import gptq_kernels as kernels

    kernels.nearest_plane_block(
        w.numpy(),
        carried.numpy(),
        factor.numpy(),
        group.numpy(),
        scale.numpy(),
        zero.numpy(),
        code.numpy(),
        error.numpy(),
        *kernels.as_float32(codes),
    )


def descend_block(
    code: Tensor,
    gradient: Tensor,
    gram: Tensor,
    group: Tensor,
    scale: Tensor,
    zero: Tensor,
    change: Tensor,
    gained: Tensor,
    *,
    refit: bool,
    descend: bool,
    onward: bool,
    multiplier: float,
    codes: Rounding,
    scales: Rounding,
) -> None:
    """One block of descent in place; shapes as in the kernels, all contiguous float32."""
    if code.device.type != "cpu":
        blocks_torch.descend_block(
            code,
            gradient,
            gram,
            group,
            scale,
            zero,
            change,
            gained,
            refit,
            descend,
            multiplier,
            codes,
            scales,
        )
        return
    from stages.compress.solvers import gptq_kernels as kernels

    kernels.descend_block(
        code.numpy(),
        gradient.numpy(),
        gram.numpy(),
        group.numpy(),
        scale.numpy(),
        zero.numpy(),
        change.numpy(),
        gained.numpy(),
        refit,
        descend,
        onward,
        np.float32(multiplier),
        *kernels.as_float32(codes),
        *kernels.as_float32(scales),
    )
