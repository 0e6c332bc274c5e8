"""Sums of predictions against their definitions in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.eval.metrics import Sums, compare, spread
from stages.eval.run import predictions


def drawn(seed: int, n: int, vocab: int):
    generator = torch.Generator().manual_seed(seed)
    original = torch.randn(n, vocab, generator=generator) * 8
    compressed = original + torch.randn(n, vocab, generator=generator)
    return original, compressed, torch.randint(0, vocab, (n,), generator=generator)


@given(seed=st.integers(0, 99), n=st.integers(1, 9), vocab=st.integers(2, 300))
def test_sums_follow_their_definitions(seed: int, n: int, vocab: int):
    original, compressed, targets = drawn(seed, n, vocab)
    rows = compare(original, compressed, targets)
    sums = Sums.of([(rows, torch.ones(1, n).bool())])
    p, q = (x.double().log_softmax(-1) for x in (original, compressed))
    at = torch.arange(n)
    assert sums.tokens == n
    wanted = {
        "nll_original": -p[at, targets].mean(),
        "nll_compressed": -q[at, targets].mean(),
        "kl": (p.exp() * (p - q)).sum(-1).mean(),
        "agreed": (p.argmax(-1) == q.argmax(-1)).double().mean(),
    }
    for name, value in wanted.items():
        assert sums.mean(name) == pytest.approx(float(value), rel=1e-4, abs=1e-5)
        assert sums.stderr(name) is None  # a single sample


def test_sums_of_parts_are_those_of_the_whole():
    rows = compare(*drawn(0, 10, 50))
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [1, 0, 1, 1]]).bool()
    whole = Sums.of([(rows, mask)])
    parts = Sums.of([(rows[:3], mask[:2]), (rows[3:], mask[2:])])
    assert whole.counts.tolist() == parts.counts.tolist() == [3, 4, 3]
    assert torch.equal(whole.values, parts.values)
    assert torch.equal(whole.values[1], rows[3:7].sum(0))


def test_standard_errors_are_those_of_drawing_samples_again():
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(5, 60, (300,), generator=generator)
    hardness = torch.randn(300, generator=generator).double()
    mask = torch.arange(60) < lengths[:, None]
    of = torch.repeat_interleave(torch.arange(300), lengths)
    first = hardness[of] + torch.randn(len(of), generator=generator).double()
    second = first + 0.1 * torch.randn(len(of), generator=generator).double()
    sums = Sums.of([(torch.stack([first, second, first, first], -1), mask)])
    drawn_again = torch.randint(0, 300, (2000, 300), generator=generator)
    counts = sums.counts[drawn_again].sum(-1)
    for less in (None, "nll_original"):
        column = sums.values[:, 1] - (sums.values[:, 0] if less else 0)
        wanted = float((column[drawn_again].sum(-1) / counts).std())
        assert sums.stderr("nll_compressed", less=less) == pytest.approx(wanted, rel=0.1)
    paired = sums.stderr("nll_compressed", less="nll_original")
    assert paired < 0.05 * sums.stderr("nll_compressed")
    assert spread(20.0, 0.01) == 0.2 and spread(20.0, None) is None


def test_only_real_tokens_of_the_same_sample_are_predicted():
    ids = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0]])
    keep, targets = predictions(ids, torch.tensor([3, 2, 1]))
    assert keep.tolist() == [[True, True], [True, False], [False, False]]
    assert targets.tolist() == [2, 3, 5]
    marks = torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 1]]).bool()
    keep, targets = predictions(ids, torch.tensor([3, 2, 1]), marks)
    assert keep.tolist() == [[False, True], [True, False], [False, False]]
    assert targets.tolist() == [3, 5]
