"""Statistics: independent of how rows are split, and equal to their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.calibrate.statistics.absmax import AbsMax
from stages.calibrate.statistics.gram import BLOCK, Gram
from stages.calibrate.statistics.range import Range

KINDS = [Gram, AbsMax, Range]


def gathered(kind: type[Gram], *chunks: Tensor) -> Tensor:
    state = kind.init(chunks[0].shape[1], "cpu")
    for chunk in chunks:
        state = kind.update(state, chunk)
    return state


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 40), features=st.integers(1, 70), seed=st.integers(0, 99))
def test_merged_halves_equal_the_whole(
    kind: type[Gram], rows: int, features: int, seed: int
) -> None:
    x = torch.randn(rows, features, generator=torch.Generator().manual_seed(seed))
    whole = kind.finish(gathered(kind, x))
    halves = gathered(kind, x[: rows // 2]), gathered(kind, x[rows // 2 :])
    torch.testing.assert_close(kind.finish(kind.merge(*halves)), whole)
    torch.testing.assert_close(kind.finish(gathered(kind, *x.split(7))), whole)


@pytest.mark.parametrize("features", [5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 130])
def test_gram_is_the_symmetric_product(features: int) -> None:
    x = torch.randn(50, features)
    gram = Gram.finish(gathered(Gram, x[:20], x[20:]))
    assert torch.equal(gram, gram.T)
    torch.testing.assert_close(gram.double(), x.double().T @ x.double(), rtol=1e-4, atol=1e-4)


def test_absmax_and_range_are_exact() -> None:
    x = torch.tensor([[1.0, -7.0], [2.0, 3.0]])
    assert AbsMax.finish(gathered(AbsMax, x)).tolist() == [2.0, 7.0]  # type: ignore[arg-type]
    assert Range.finish(gathered(Range, x)).tolist() == [-7.0, 3.0]  # type: ignore[arg-type]


def test_nothing_seen_is_the_neutral_element() -> None:
    x = torch.randn(9, 4)
    for kind in KINDS:
        state = gathered(kind, x)  # type: ignore[arg-type]
        assert torch.equal(kind.merge(kind.init(4, "cpu"), state), state)
