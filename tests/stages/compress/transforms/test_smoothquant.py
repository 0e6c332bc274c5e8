"""Smoothing scales, and the Gram matrix of smoothed inputs."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.compress.transforms.smoothquant import rescale_gram, smoothing_scales


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), alpha=st.floats(0.0, 1.0))
def test_rescaled_gram_is_the_gram_of_rescaled_inputs(seed: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(50, 12, generator=generator, dtype=torch.float64)
    w = torch.randn(7, 12, generator=generator)
    s = smoothing_scales(x.abs().amax(dim=0), w.abs().amax(dim=0), alpha)
    smoothed = x / s
    assert torch.allclose(rescale_gram(x.T @ x, s), smoothed.T @ smoothed)
    assert torch.allclose((x / s) @ (w * s).double().T, x @ w.double().T, rtol=1e-4, atol=1e-4)


def test_half_strength_gives_both_operands_the_same_range() -> None:
    x, w = torch.tensor([100.0, 1.0, 0.5]), torch.tensor([0.01, 0.2, 2.0])
    s = smoothing_scales(x, w, 0.5)
    assert torch.allclose(x / s, w * s)


def test_dead_and_broken_channels_stay_as_they_are() -> None:
    x = torch.tensor([0.0, 5.0, float("inf"), float("nan"), 2.0])
    w = torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0])
    s = smoothing_scales(x, w)
    assert torch.equal(s[:4], torch.ones(4))
    assert torch.isfinite(s).all()
    assert (s > 0).all()
