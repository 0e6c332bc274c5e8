"""Logarithmic activation equalization (FPTQ, arXiv:2308.15987)."""

from __future__ import annotations

import torch
from torch import Tensor


def log_equalization_scales(input_absmax: Tensor) -> Tensor:
    """s_j = max|x_j| / log2(2 + max|x_j|), equation 7; float32 [in].

    input_absmax: [in], the largest magnitude of each input channel. The input is divided by s, the
    columns that read it are multiplied by s: no weight plays a part. Outliers shrink to the
    logarithm of their size. A channel that is dead, or not finite, gets 1.
    """
    x = input_absmax.float()
    s = x / torch.log2(2 + x)
    return torch.where(torch.isfinite(s) & (s > 0), s, 1.0)
