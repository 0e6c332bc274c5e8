"""The column loops on whichever device the tensors are: compiled on a CPU, torch elsewhere."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from stages.compress.grid import Rounding
from stages.compress.solvers import blocks_torch


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
    tensors = (w, carried, factor, group, scale, zero, code, error)
    if w.device.type != "cpu":
        blocks_torch.nearest_plane_block(*tensors, codes)
        return
    from stages.compress.solvers import kernels

    kernels.nearest_plane_block(*(t.numpy() for t in tensors), *kernels.as_float32(codes))


def descend_block(
    code: Tensor,
    gradient: Tensor,
    gram: Tensor,
    group: Tensor,
    scale: Tensor,
    zero: Tensor,
    *,
    refit: bool,
    descend: bool,
    multiplier: float,
    codes: Rounding,
    scales: Rounding,
) -> None:
    """One block of descent in place; shapes as in the kernels, all contiguous float32."""
    tensors = (code, gradient, gram, group, scale, zero)
    if code.device.type != "cpu":
        blocks_torch.descend_block(*tensors, refit, descend, multiplier, codes, scales)
        return
    from stages.compress.solvers import kernels

    kernels.descend_block(
        *(t.numpy() for t in tensors),
        refit,
        descend,
        np.float32(multiplier),
        *kernels.as_float32(codes),
        *kernels.as_float32(scales),
    )
