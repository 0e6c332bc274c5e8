"""Statistics: independent of how rows are split, and equal to their definition."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.calibrate.statistics.absmax import AbsMax
from stages.calibrate.statistics.absmean import AbsMean
from stages.calibrate.statistics.base import given_to
from stages.calibrate.statistics.gram import Gram
from stages.calibrate.statistics.histogram import Histogram
from stages.calibrate.statistics.range import Range
from stages.calibrate.statistics.rows import KEPT, Rows
from stages.compute import gram as gram_module
from stages.compute.gram import BLOCK

KINDS = [Gram, AbsMax, AbsMean, Histogram]


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("features", [31, 64, 75])
def test_gram_by_halves_is_as_near_to_float64_as_sums_in_float32_can_be(
    features: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's product is emulated: two halves multiply exactly in float32, sums are rounded."""
    monkeypatch.setattr(gram_module, "half_product", lambda one, other: one.float() @ other.float())
    monkeypatch.setattr(gram_module, "HALF_BLOCK", 32)
    monkeypatch.setattr(gram_module, "HALF_ROWS", 1000)
    generator = torch.Generator().manual_seed(features)
    x = torch.randn(6000, features, generator=generator) + 0.3
    x = (x * torch.rand(features, generator=generator).exp() ** 4).to(dtype)
    gram = Gram.finish(gathered(Gram, x[:3500], x[3500:]))
    assert torch.equal(gram, gram.T)
    exact = x.double().T @ x.double()
    size = exact.diagonal().sqrt()
    assert ((gram - exact) / (size[:, None] * size)).abs().max() < 3e-6


def test_halves_are_handed_as_they_are_on_a_gpu_to_statistics_that_take_them() -> None:
    on_gpu = torch.ones(2, 3, dtype=torch.bfloat16, device="meta")
    assert given_to(Gram, on_gpu) is on_gpu
    assert given_to(AbsMax, on_gpu).dtype == torch.float32
    assert given_to(Gram, on_gpu.double()).dtype == torch.float32
    assert given_to(Gram, torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_absmax_and_range_are_exact() -> None:
    x = torch.tensor([[1.0, -7.0], [2.0, 3.0]])
    assert AbsMax.finish(gathered(AbsMax, x)).tolist() == [2.0, 7.0]  # type: ignore[arg-type]
    assert Range.finish(gathered(Range, x)).tolist() == [[-7.0, 3.0]]  # type: ignore[arg-type]


def test_ranges_of_batches_stay_apart_and_in_order() -> None:
    x = torch.tensor([[1.0, -7.0], [2.0, 3.0], [5.0, 4.0]])
    first = gathered(Range, x[:1], x[1:2])  # type: ignore[arg-type]
    second = gathered(Range, x[2:])  # type: ignore[arg-type]
    whole = Range.finish(Range.merge(first, second))
    assert whole.tolist() == [[-7.0, 1.0], [2.0, 3.0], [4.0, 5.0]]


def test_a_histogram_counts_every_value_once_rounded_to_bfloat16() -> None:
    x = torch.randn(50, 40, generator=torch.Generator().manual_seed(1)) * 3
    x[0, :3] = torch.tensor([0.0, -0.0, 1e-40])
    found = Histogram.finish(gathered(Histogram, x[:20], x[20:]))  # type: ignore[arg-type]
    values, counts = x.bfloat16().double().unique(return_counts=True)
    merged: dict[float, float] = {}
    for value, count in found.tolist():
        merged[value] = merged.get(value, 0.0) + count
    assert merged == dict(zip(values.tolist(), counts.tolist(), strict=True))
    assert bool((found[1:, 0] >= found[:-1, 0]).all())


def test_nothing_seen_is_the_neutral_element() -> None:
    x = torch.randn(9, 4)
    for kind in [*KINDS, Range, Rows]:
        state = gathered(kind, x)  # type: ignore[arg-type]
        assert torch.equal(kind.merge(kind.init(4, "cpu"), state), state)


def test_rows_are_a_sample_that_does_not_depend_on_how_they_come() -> None:
    x = torch.arange(3000.0)[:, None].expand(-1, 2).clone()
    whole = Rows.finish(gathered(Rows, x))  # type: ignore[arg-type]
    for sizes in (1000, 37, 256):
        found = Rows.finish(gathered(Rows, *x.split(sizes)))  # type: ignore[arg-type]
        assert torch.equal(found, whole)
    numbers = whole[:, 0]
    assert whole.shape == (KEPT, 2) and len(numbers.unique()) == KEPT
    counts = torch.histc(numbers, bins=4, min=0, max=3000)  # 64 in each, give or take 7
    assert counts.min() > 36 and counts.max() < 92


def test_fewer_rows_than_a_sample_are_all_kept() -> None:
    x = torch.randn(100, 3)
    found = Rows.finish(gathered(Rows, x[:30], x[30:]))  # type: ignore[arg-type]
    assert sorted(found.tolist()) == sorted(x.tolist())
    merged = Rows.merge(gathered(Rows, x[:30]), gathered(Rows, x[30:]))  # type: ignore[arg-type]
    assert sorted(Rows.finish(merged).tolist()) == sorted(x.tolist())
