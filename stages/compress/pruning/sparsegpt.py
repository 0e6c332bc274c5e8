"""SparseGPT (arXiv:2301.00774): prune column by column, later columns making up for errors.

In the notation of `stages.compress.solvers.gptq`: H = M M^T with M upper triangular, E = W - Q, and
the best value for column k is W_k + (sum_{j<k} E_j M_jk) / M_kk. An entry that is kept takes it and
adds nothing to the error; one that is pruned adds M_kk^2 times its square, which is the score of
the paper's algorithm 1 (its [H^-1]_kk^-2 is M_kk^2). Masks are chosen for a block of columns at a
time, those of a pattern for each group as it is reached, by the values that the columns would have
if all of them were kept: W + (E M) M_BB^-1 for the columns B, with E of the columns before them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.pruning.masks import Structure, largest_of, largest_share
from stages.compress.solvers.cholesky import damped, upper_factor
from stages.compress.solvers.numerical_error import all_finite, not_finite


def sparsegpt(
    weight: Tensor,
    H: Tensor,
    *,
    sparsity: float,
    structure: Structure,
    block_size: int = 128,
    dampening_frac: float = 0.01,
) -> Tensor:
    """A pruned weight, float32 [out, in], with small tr((W-Q) H (W-Q)^T); zeros are exact.

    weight [out, in]; H: float32 [in, in], sum of x x^T over tokens. sparsity: share of zeros of
    every block, where the structure does not say it. Raises NumericalError when the damped H is not
    positive definite or the weight is not finite.
    """
    W = weight.float().T.contiguous()
    if not all_finite(W):
        raise not_finite(weight)
    M = upper_factor(damped(H, dampening_frac), torch.arange(len(W), device=W.device))
    Q, E, EM = torch.empty_like(W), torch.zeros_like(W), torch.zeros_like(W)
    # groups of a pattern lie within blocks whole
    step = block_size if not structure.of else max(1, block_size // structure.of) * structure.of
    for start in range(0, len(W), step):
        stop = min(start + step, len(W))
        keep = torch.ones_like(W[start:stop], dtype=torch.bool)
        if not structure.of:
            score = _scores(W, EM, M, slice(start, stop))
            keep = largest_share(score.T, sparsity, by_row=False).T
        for k in range(start, stop):
            if structure.of and k % structure.of == 0 and k + structure.of <= len(W):
                score = _scores(W, EM, M, slice(k, k + structure.of))
                keep[k - start : k - start + structure.of] = largest_of(score.T, structure).T
            value = W[k] + EM[k] / M[k, k]
            Q[k] = torch.where(keep[k - start], value, 0.0)
            E[k] = W[k] - Q[k]
            EM[k:stop] += M[k, k:stop, None] * E[k]
        EM[stop:] += M[start:stop, stop:].T @ E[start:stop]
    return Q.T.contiguous()


def _scores(W: Tensor, EM: Tensor, M: Tensor, part: slice) -> Tensor:
    """What pruning each entry of some columns alone would add to the error, [columns, rows]."""
    made_up: Tensor = torch.linalg.solve_triangular(M[part, part].T, EM[part], upper=False)
    return ((W[part] + made_up) * M.diagonal()[part, None]).square()
