"""Output error of a quantized weight: E H E^T and W H W^T, and their ratio."""

from __future__ import annotations

from torch import Tensor

from stages.compress.solvers.products import product
from stages.formats.row_blocks import by_rows

_PANEL = 256  # columns of a product


def relative_error(weight: Tensor, quantized: Tensor, H: Tensor | None = None) -> float:
    """tr(E H E^T) / tr(W H W^T) with E = W - Q; without H the squared Frobenius norms' ratio.

    weight, quantized [out, in]; H float32 [in, in]. 0 when the weight gives no output at all.
    """
    if H is None:
        return ratio(*_norms(weight, quantized))
    w = weight.float()
    e = w - quantized.float()
    return ratio(float(((e @ H) * e).sum()), float(((w @ H) * w).sum()))


def _norms(weight: Tensor, quantized: Tensor) -> tuple[float, float]:
    """Squared norms of the difference and of the weight."""
    found: dict[int, tuple[float, float]] = {}

    def tile(start: int, stop: int) -> None:
        w = weight[start:stop].float()
        e = w - quantized[start:stop].float()
        found[start] = (float(e.square().sum()), float(w.square().sum()))

    by_rows(weight, tile)
    tiles = [found[start] for start in sorted(found)]
    return sum(error for error, _ in tiles), sum(whole for _, whole in tiles)


def ratio(error: float, whole: float) -> float:
    """error / whole, and 0 when there is nothing that could be lost."""
    return error / whole if whole > 0 else 0.0


def weight_energies(W: Tensor, M: Tensor, damping: float, *, tf32: bool = False) -> Tensor:
    """w H w^T without the damping, float32 [rows], for the weight W [in, rows] and H = M M^T.

    M: float32 [in, in], upper triangular, of the H with `damping` on its diagonal. tf32: multiply
    in TF32.
    """
    total = W.square().sum(dim=0).mul_(-damping)
    for start in range(0, W.shape[0], _PANEL):
        stop = min(start + _PANEL, W.shape[0])
        part = product(M[:stop, start:stop].T, W[:stop], tf32=tf32)
        total += part.square_().sum(dim=0)
    return total
