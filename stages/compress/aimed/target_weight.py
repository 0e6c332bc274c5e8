"""The weight that GPTQ is aimed at, and what is left of a difference between two chains.

After GPTAQ (arXiv:2504.02692), whose asymmetric calibration asks for |W A - Q B| to be small, A the
inputs in the original model and B those in the compressed one, and carries the difference along
while columns are quantized. Here the best dense weight for it is found first, in closed form, and
GPTQ then rounds that weight in the metric of B: rounding knows one metric and one target.

Notation, with tokens as rows: W [out, in] the weight, B [n, in] its inputs in the compressed model,
D [n, out] the wanted value less the present one where its output arrives, H = B^T B, C = D^T B.
|D - B (W' - W)^T|^2 is least for W' = W + C H^-1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stages.compress.solvers.cholesky import damped, upper_factor


def target_weights(
    weights: Sequence[Tensor],
    crosses: Sequence[Tensor],
    H: Tensor,
    *,
    strength: float,
    damping: float,
) -> list[Tensor]:
    """W + strength * C (H + damping * mean(diag H) I)^-1 for weights that share their inputs.

    weights: [out, in]; crosses: float32 [out, in], their C; H: float32 [in, in]. Gives float32
    [out, in]. Raises NumericalError when H is not finite, zero, or not positive definite.
    """
    order = torch.arange(H.shape[0], device=H.device)
    M = upper_factor(damped(H, damping), order)  # the damped H is M M^T
    found = []
    for weight, C in zip(weights, crosses, strict=True):
        half = torch.linalg.solve_triangular(M.T, C, upper=False, left=False)
        step = torch.linalg.solve_triangular(M, half, upper=True, left=False)
        found.append(weight.float() + strength * step)
    return found


def difference_left(
    difference: float, weight: Tensor, quantized: Tensor, H: Tensor, C: Tensor
) -> float:
    """|D - B (Q - W)^T|^2, the squared difference once Q [out, in] is in place of W [out, in].

    difference: |D|^2, which it was with W itself. Not below 0.
    """
    step = quantized.float() - weight.float()
    moved = (step @ H - 2 * C).mul_(step).sum(dtype=torch.float64)
    return max(0.0, difference + float(moved))
