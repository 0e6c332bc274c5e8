"""Perplexity, KL divergence and top-1 agreement of two models. Pure functions of tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Sums over `tokens` predictions: negative log-likelihoods, KL divergences (nats), agreements.

    Sums of disjoint sets of predictions add up.
    """

    tokens: int = 0
    nll_original: float = 0.0
    nll_compressed: float = 0.0
    kl: float = 0.0
    agreed: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            tokens=self.tokens + other.tokens,
            nll_original=self.nll_original + other.nll_original,
            nll_compressed=self.nll_compressed + other.nll_compressed,
            kl=self.kl + other.kl,
            agreed=self.agreed + other.agreed,
        )


def compare(original: Tensor, compressed: Tensor, targets: Tensor) -> Sums:
    """Compare logits float32 [n, vocab] of two models for the next tokens `targets` int64 [n].

    KL is KL(original || compressed), the sum of p (log p - log q). Sums are computed in float64.
    """
    log_p, log_q = log_softmax(original, dim=-1), log_softmax(compressed, dim=-1)
    kl = kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    agreed = log_p.argmax(-1) == log_q.argmax(-1)
    at = targets.unsqueeze(-1)
    return Sums(
        tokens=len(targets),
        nll_original=-float(log_p.gather(-1, at).sum(dtype=torch.float64)),
        nll_compressed=-float(log_q.gather(-1, at).sum(dtype=torch.float64)),
        kl=float(kl.sum(dtype=torch.float64)),
        agreed=int(agreed.sum()),
    )


def perplexity(nll: float, tokens: int) -> float:
    """exp of the mean negative log-likelihood; OverflowError if that is above 709."""
    return math.exp(nll / tokens)
