"""How far a quantized weight is from the original, as its inputs see it."""

from __future__ import annotations

from torch import Tensor


def relative_error(weight: Tensor, quantized: Tensor, H: Tensor | None = None) -> float:
    """tr(E H E^T) / tr(W H W^T) with E = W - Q; without H the squared Frobenius norms' ratio.

    weight, quantized [out, in]; H float32 [in, in]. 0 when the weight gives no output at all.
    """
    w = weight.float()
    e = w - quantized.float()
    if H is None:
        error, whole = e.square().sum(), w.square().sum()
    else:
        error, whole = ((e @ H) * e).sum(), ((w @ H) * w).sum()
    return ratio(float(error), float(whole))


def ratio(error: float, whole: float) -> float:
    """error / whole, and 0 when there is nothing that could be lost."""
    return error / whole if whole > 0 else 0.0
