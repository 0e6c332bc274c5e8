"""Saliency of routed experts, and which of them to keep (REAP, arXiv:2510.13999, equation 9).

S_j is the mean over the tokens routed to expert j of g_j(x) |f_j(x)|_2: the gate's value times the
norm of the expert's output. That is the norm of what the expert adds to the output of its layer, so
that one whose input is scaled by the gate (Llama 4's) has a saliency as well.
"""

from __future__ import annotations

import torch
from torch import Tensor


def norms(output: Tensor, gate: Tensor | None) -> Tensor:
    """float64 [n]: g |f|_2 of every token; output: [n, hidden], gate: [n], None for ones."""
    found: Tensor = torch.linalg.vector_norm(output, dim=-1, dtype=torch.float32).double()
    return found if gate is None else found * gate.double().abs()


def saliency(sums: Tensor, tokens: Tensor) -> Tensor:
    """float64 [experts]: `sums` float64 [experts] over `tokens` int64 [experts]; 0 without any."""
    return sums / tokens.clamp(min=1)


def kept_experts(saliency: Tensor, left: int, groups: int = 1) -> list[int]:
    """The numbers, in order, of the `left` experts with the largest `saliency` [experts].

    Of each of `groups` (of equal size, in order) as many; of equal ones the earlier stay.
    """
    size, each = len(saliency) // groups, left // groups
    kept: list[int] = []
    for start in range(0, size * groups, size):
        order = saliency[start : start + size].argsort(descending=True, stable=True)
        kept += sorted((order[:each] + start).tolist())
    return kept
