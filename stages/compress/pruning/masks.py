"""Masks of entries to keep: a share of a weight, of every row, or n of every m neighbours.

Magnitude pruning keeps the largest |W|, Wanda (arXiv:2306.11695, section 3) the largest
|W_ij| |X_j|, compared within a row, where |X_j| is the norm of input channel j over all tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """`zeros` of every `of` neighbouring entries of a row are zero; both 0: any may be."""

    zeros: int
    of: int


def largest_of(score: Tensor, structure: Structure) -> Tensor:
    """The entries of `score` [out, in] that a pattern keeps: bool [out, in].

    The earlier one goes where two are equal. A rest of fewer than `of` columns is kept whole.
    """
    rows, columns = score.shape
    whole = columns - columns % structure.of
    groups = score[:, :whole].reshape(rows, -1, structure.of)
    order = groups.argsort(dim=-1, stable=True)
    kept = torch.ones_like(groups, dtype=torch.bool).scatter_(
        -1, order[..., : structure.zeros], False
    )
    mask = torch.ones_like(score, dtype=torch.bool)
    mask[:, :whole] = kept.reshape(rows, whole)
    return mask


def largest_share(score: Tensor, sparsity: float, *, by_row: bool) -> Tensor:
    """All but the smallest `sparsity` of the entries of `score` [out, in]: bool [out, in].

    Compared within every row, or over the whole weight. As many as asked for, to the nearest one.
    """
    flat = score if by_row else score.reshape(1, -1)
    count = round(sparsity * flat.shape[1])
    order = flat.argsort(dim=-1, stable=True)
    mask = torch.ones_like(flat, dtype=torch.bool).scatter_(-1, order[:, :count], False)
    return mask.reshape(score.shape)


def wanda_scores(weight: Tensor, H: Tensor) -> Tensor:
    """|W_ij| |X_j| for a weight [out, in]; H: float32 [in, in], the Gram matrix of its inputs."""
    return weight.float().abs() * H.diagonal().clamp_min(0).sqrt()


def keep_largest(
    weight: Tensor, score: Tensor, sparsity: float, structure: Structure, *, by_row: bool
) -> Tensor:
    """`weight` [out, in] with zeros where its `score` is among the smallest of a pattern or all."""
    if structure.of:
        mask = largest_of(score, structure)
    else:
        mask = largest_share(score, sparsity, by_row=by_row)
    return torch.where(mask, weight, 0.0)
