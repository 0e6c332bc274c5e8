"""SmoothQuant (arXiv:2211.10438): move outliers from activations into weights."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALLEST = 1e-5  # a channel this quiet, in either operand, has nothing to move


def smoothing_scales(input_absmax: Tensor, weight_absmax: Tensor, alpha: float = 0.5) -> Tensor:
    """s_j = max|x_j|^alpha / max|w_j|^(1 - alpha), equation 4; float32 [in].

    ``input_absmax`` and ``weight_absmax`` [in] are the largest magnitudes of each input channel
    and of the weight columns that read it, over all modules that share the input. The input is
    divided by s, the columns are multiplied by s. Finite and positive: a dead channel (either
    magnitude below 1e-5, or not finite) gets 1.
    """
    x, w = input_absmax.float(), weight_absmax.float()
    s = x.clamp(min=_SMALLEST).pow(alpha) / w.clamp(min=_SMALLEST).pow(1 - alpha)
    alive = (x >= _SMALLEST) & (w >= _SMALLEST) & torch.isfinite(s) & (s > 0)
    return torch.where(alive, s, 1.0)


def rescale_gram(H: Tensor, s: Tensor) -> Tensor:
    """diag(1/s) H diag(1/s): the Gram matrix of inputs divided by s. H [in, in], s [in]."""
    return H / s[:, None] / s[None, :]
