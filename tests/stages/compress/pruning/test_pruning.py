"""Masks and SparseGPT against what their papers write, in float64 and entry by entry."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from stages.compress.modifiers import Constant, Gptq, Magnitude, SmoothQuant, SparseGpt, Wanda
from stages.compress.modifiers.base import check_order
from stages.compress.pruning.masks import Structure, largest_of, largest_share, wanda_scores
from stages.compress.pruning.sparsegpt import sparsegpt

PATTERN, FREE = Structure(zeros=2, of=4), Structure(zeros=0, of=0)


def problem(rows: int = 24, columns: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A weight and the Gram matrix of correlated inputs with some loud channels."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(256, columns, generator=draw) @ torch.randn(columns, columns, generator=draw)
    x[:, ::7] *= 5
    return torch.randn(rows, columns, generator=draw), x.T @ x


def error(weight: Tensor, pruned: Tensor, H: Tensor) -> float:
    e = (weight - pruned).double()
    return float(((e @ H.double()) * e).sum())


def by_the_paper(
    weight: Tensor, H: Tensor, structure: Structure, share: float, block: int
) -> Tensor:
    """Algorithm 1 of arXiv:2301.00774 along the Cholesky factor of H^-1, in float64."""
    W, n = weight.double().clone(), weight.shape[1]
    damping = 0.01 * H.double().diagonal().mean() * torch.eye(n, dtype=torch.float64)
    U = torch.linalg.cholesky(torch.linalg.inv(H.double() + damping), upper=True)
    for start in range(0, n, block):
        stop = min(start + block, n)
        mask = torch.ones(len(W), stop - start, dtype=torch.bool)
        if not structure.of:
            score = (W[:, start:stop] / U.diagonal()[start:stop]).square().flatten()
            mask.view(-1)[score.argsort()[: round(share * len(score))]] = False
        for k in range(start, stop):
            if structure.of and k % structure.of == 0:
                group = slice(k, k + structure.of)
                score = (W[:, group] / U.diagonal()[group]).square()
                least = score.argsort(dim=1)[:, : structure.zeros]
                mask[:, k - start : k - start + structure.of].scatter_(1, least, False)
            kept = torch.where(mask[:, k - start], W[:, k], 0.0)
            miss = (W[:, k] - kept) / U[k, k]
            W[:, k + 1 :] -= miss[:, None] * U[k, k + 1 :]
            W[:, k] = kept
    return W


@pytest.mark.parametrize(("structure", "block"), [(PATTERN, 8), (FREE, 8), (FREE, 32)])
def test_sparsegpt_is_the_papers_algorithm(structure: Structure, block: int) -> None:
    weight, H = problem()
    found = sparsegpt(weight, H, sparsity=0.5, structure=structure, block_size=block)
    wanted = by_the_paper(weight, H, structure, 0.5, block)
    assert torch.equal(found == 0, wanted == 0)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("pattern", ["2:4", "4:8", "1:4", "0:0"])
def test_methods_lose_less_the_more_they_know(pattern: str) -> None:
    weight, H = problem()
    options = {"mask_structure": pattern, "sparsity": None if pattern != "0:0" else 0.4}
    lost = [
        error(weight, kind(**options).prune(weight, H), H) for kind in (SparseGpt, Wanda, Magnitude)
    ]
    assert lost[0] < lost[1] < lost[2]


@pytest.mark.parametrize("kind", [SparseGpt, Wanda, Magnitude])
def test_patterns_hold_in_every_group_and_a_rest_stays(kind: type) -> None:
    weight, H = problem(columns=30)
    pruned = kind(mask_structure="2:4").prune(weight, H)
    zeros = (pruned[:, :28] == 0).reshape(24, 7, 4).sum(dim=-1)
    assert bool((zeros == 2).all())
    assert not bool((pruned[:, 28:] == 0).any())


@pytest.mark.parametrize("kind", [SparseGpt, Wanda, Magnitude])
def test_half_is_the_share_where_nothing_is_said(kind: type) -> None:
    weight, H = problem()
    assert float((kind().prune(weight, H) == 0).float().mean()) == 0.5


def test_wanda_compares_within_rows_and_magnitude_over_the_weight() -> None:
    weight, H = problem()
    weight[0] *= 100
    assert bool(((Wanda(sparsity=0.25).prune(weight, H) == 0).sum(dim=1) == 8).all())
    assert not bool((Magnitude(sparsity=0.25).prune(weight, None)[0] == 0).any())
    by_hand = weight.abs() * H.diagonal().sqrt()
    assert torch.equal(wanda_scores(weight, H), by_hand)
    assert torch.equal(
        largest_share(by_hand, 0.25, by_row=True), Wanda(sparsity=0.25).prune(weight, H) != 0
    )


def test_equal_scores_lose_the_earlier_one_on_every_device() -> None:
    assert largest_of(torch.ones(1, 4), PATTERN).tolist() == [[False, False, True, True]]
    assert largest_share(torch.ones(1, 4), 0.5, by_row=True).tolist() == [
        [False, False, True, True]
    ]


def test_constant_changes_nothing() -> None:
    weight, _ = problem()
    assert Constant().prune(weight, None) is weight


@pytest.mark.parametrize("text", ["2", "4:2", "0:4", "2:4:8", "a:b", "-1:4"])
def test_a_pattern_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="mask_structure"):
        Wanda(mask_structure=text)


@pytest.mark.parametrize("options", [{"sparsity": 1.0}, {"sparsity": 0.3, "mask_structure": "2:4"}])
def test_a_share_that_cannot_be_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match="sparsity is"):
        SparseGpt(**options)


@pytest.mark.parametrize(
    ("modifiers", "message"),
    [
        ((Wanda(), SmoothQuant(), Gptq()), "comes after 'wanda'"),
        ((Wanda(), SparseGpt(), Gptq()), "2 pruners"),
        ((Gptq(), Wanda()), "comes after the solver"),
    ],
)
def test_pruners_come_after_transforms_and_before_the_solver(
    modifiers: tuple[object, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_order(modifiers)
    check_order((SmoothQuant(), Wanda(), Gptq()))
