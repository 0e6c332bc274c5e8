"""Perplexity, KL divergence and top-1 agreement of two models. Pure functions of tensors.

Standard errors are those of a ratio of two sums over independent samples (Cochran, Sampling
Techniques, chapter 6): predictions of one sample share a text, so they are no independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

COLUMNS = ("nll_original", "nll_compressed", "kl", "agreed")


def compare(original: Tensor, compressed: Tensor, targets: Tensor) -> Tensor:
    """Compare logits float32 [n, vocab] of two models for the next tokens `targets` int64 [n].

    Returns float64 [n, 4] on the CPU, the columns COLUMNS: negative log-likelihoods of both in
    nats, KL(original || compressed), the sum of p (log p - log q), and 1 where their first choices
    agree, else 0.
    """
    log_p, log_q = log_softmax(original, dim=-1), log_softmax(compressed, dim=-1)
    kl = kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    agreed = log_p.argmax(-1) == log_q.argmax(-1)
    at = targets.unsqueeze(-1)
    columns = (-log_p.gather(-1, at)[:, 0], -log_q.gather(-1, at)[:, 0], kl, agreed)
    return torch.stack([column.double() for column in columns], dim=-1).cpu()


@dataclass(frozen=True, eq=False, slots=True)
class Sums:
    """Sums of `compare` over the predictions of each sample.

    counts: float64 [samples], predictions, at least 1; values: float64 [samples, 4].
    """

    counts: Tensor
    values: Tensor

    @staticmethod
    def of(parts: Iterable[tuple[Tensor, Tensor]]) -> Sums:
        """Sums from pairs of `compare`'s rows, float64 [n, 4], and the mask of their positions.

        A mask, bool [b, T-1], has a True for each of the n, row by row; every row of it is a
        sample. Samples without a prediction are left out.
        """
        counts, values = [torch.zeros(0).double()], [torch.zeros(0, len(COLUMNS)).double()]
        for rows, mask in parts:
            found = mask.sum(-1)
            samples = torch.repeat_interleave(torch.arange(len(mask)), found)
            summed = torch.zeros(len(mask), len(COLUMNS)).double().index_add(0, samples, rows)
            counts.append(found[found > 0].double())
            values.append(summed[found > 0])
        return Sums(torch.cat(counts), torch.cat(values))

    @property
    def tokens(self) -> int:
        """Predictions of all samples."""
        return int(self.counts.sum())

    def mean(self, name: str) -> float:
        """The mean of a column over all predictions."""
        return float(self._column(name).sum() / self.counts.sum())

    def stderr(self, name: str, less: str | None = None) -> float | None:
        """Standard error of the mean of a column, or of its difference from the column `less`.

        None of a single sample, which says nothing of others.
        """
        many = len(self.counts)
        if many < 2:
            return None
        column = self._column(name) - (self._column(less) if less else 0)
        left = column - self.counts * (column.sum() / self.counts.sum())
        variance = left.square().sum() * many / (many - 1) / self.counts.sum().square()
        return float(variance.sqrt())

    def _column(self, name: str) -> Tensor:
        return self.values[:, COLUMNS.index(name)]


def perplexity(nll: float) -> float:
    """exp of a mean negative log-likelihood; OverflowError if that is above 709."""
    return math.exp(nll)


def spread(ratio: float, stderr: float | None) -> float | None:
    """Standard error of `ratio`, an exp, from that of its logarithm: to first order."""
    return None if stderr is None else ratio * stderr
