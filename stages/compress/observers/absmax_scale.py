"""Symmetric absmax scales: the largest magnitude over the largest code."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.schemes.protocols import WeightFormat


def scales_of(absmax: Tensor, args: WeightFormat) -> Tensor:
    """Scales of ranges with these magnitudes, in their dtype, as compressed-tensors has them.

    For the formats that `stages.schemes.layouts.plainly_scaled` knows.
    """
    reach = 448.0 if args.type == "float" else (2**args.num_bits - 1) / 2
    # divided by a tensor: a number would be multiplied by its inverse
    scale = absmax / torch.tensor(reach, dtype=absmax.dtype, device=absmax.device)
    if scale.numel() and not bool(scale.amin() > 0):  # sooner told than where they are
        scale.masked_fill_(scale == 0, torch.finfo(absmax.dtype).eps)
    return scale
