"""OWL, outlier weighed layer-wise sparsity (arXiv:2310.05175, section 3.3).

Layers with more outliers (D_l, the share of scores above M times their mean) keep more of their
weights. The densities 1 - S_l are an affine function of D_l whose values span 2 lambda and have the
mean that is asked for, 1 - S.
"""

from __future__ import annotations

from collections.abc import Mapping


def layer_sparsities(
    outliers: Mapping[str, float], sparsity: float, lmbda: float
) -> dict[str, float]:
    """The share of zeros of every layer, from its share of outliers; their mean is `sparsity`.

    All have `sparsity` where none has more outliers than another. Raises ValueError where a layer
    would keep nothing, or everything.
    """
    low, high = min(outliers.values()), max(outliers.values())
    scale = 2 * lmbda / (high - low) if high > low else 0.0
    mean = sum(outliers.values()) / len(outliers)
    found = {name: sparsity - scale * (own - mean) for name, own in outliers.items()}
    for name, share in found.items():
        if not 0 < share < 1:
            raise ValueError(f"{name} would have {share:.3f} of its weights zero")
    return found
