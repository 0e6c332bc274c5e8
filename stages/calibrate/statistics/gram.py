"""Gram matrix X^T X of a Linear's inputs (half the Hessian of GPTQ, arXiv:2210.17323).

The products are those of :mod:`stages.compute.gram`, which says in what precision they are summed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compute.gram import add_gram, mirror


class Gram:
    """State and result: float32 [in, in], the sum of x x^T over all rows.

    The state holds only the blocks on and above the diagonal, which halves the work.
    """

    takes_half = True

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(features, features, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        add_gram(state, x)
        return state

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return one + other

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return mirror(state)
