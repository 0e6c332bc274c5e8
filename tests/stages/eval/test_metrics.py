"""Sums of predictions against their definitions in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stages.eval.metrics import Sums, compare
from stages.eval.run import predictions


def drawn(seed: int, n: int, vocab: int):
    generator = torch.Generator().manual_seed(seed)
    original = torch.randn(n, vocab, generator=generator) * 8
    compressed = original + torch.randn(n, vocab, generator=generator)
    return original, compressed, torch.randint(0, vocab, (n,), generator=generator)


@given(seed=st.integers(0, 99), n=st.integers(1, 9), vocab=st.integers(2, 300))
def test_sums_follow_their_definitions(seed: int, n: int, vocab: int):
    original, compressed, targets = drawn(seed, n, vocab)
    sums = compare(original, compressed, targets)
    p, q = (x.double().log_softmax(-1) for x in (original, compressed))
    rows = torch.arange(n)
    assert sums.tokens == n
    assert sums.nll_original == pytest.approx(float(-p[rows, targets].sum()), rel=1e-5, abs=1e-5)
    assert sums.nll_compressed == pytest.approx(float(-q[rows, targets].sum()), rel=1e-5, abs=1e-5)
    assert sums.kl == pytest.approx(float((p.exp() * (p - q)).sum()), rel=1e-4, abs=1e-5)
    assert sums.agreed == int((p.argmax(-1) == q.argmax(-1)).sum())


def test_sums_of_parts_add_up_to_the_whole():
    original, compressed, targets = drawn(0, 10, 50)
    whole = compare(original, compressed, targets)
    parts = compare(original[:4], compressed[:4], targets[:4])
    parts += compare(original[4:], compressed[4:], targets[4:])
    for name in Sums.__slots__:
        assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12)


def test_only_real_tokens_of_the_same_sample_are_predicted():
    ids = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0]])
    keep, targets = predictions(ids, torch.tensor([3, 2, 1]))
    assert keep.tolist() == [[True, True], [True, False], [False, False]]
    assert targets.tolist() == [2, 3, 5]
    marks = torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 1]]).bool()
    keep, targets = predictions(ids, torch.tensor([3, 2, 1]), marks)
    assert keep.tolist() == [[False, True], [True, False], [False, False]]
    assert targets.tolist() == [3, 5]
