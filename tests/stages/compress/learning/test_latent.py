"""Latent codes: they start at a solver's, and move by the straight-through gradient of the loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.compress.grid import Grid, Quantized, grid_of, round_to
from stages.compress.learning.latent import BETAS, Adam, Latent, ladder, place_of
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.solvers.gptq import gptq
from stages.formats.codes import decode
from tests.stages.compress.solvers.reference import problem
from tests.stages.schemes.presets import group

FORMATS = ("w4a16", "w4a16_asym", "w2a16", "w8a8", "nvfp4", "mxfp4", "fp8_dynamic", "fp8_block")
ROWS, COLUMNS = 24, 256


def solved(scheme: str) -> tuple[Tensor, Grid, Quantized]:
    weight, H = problem(rows=ROWS, columns=COLUMNS)
    args = group(scheme).weights
    assert args is not None
    grid = grid_of(args)
    scale = None
    if grid.strategy == "tensor_group":
        scale = OBSERVERS["minmax"](weight, grid).global_scale
    return weight, grid, gptq(weight, H, grid, global_scale=scale)


@pytest.mark.parametrize("scheme", FORMATS)
def test_a_latent_starts_at_what_the_solver_chose(scheme: str) -> None:
    weight, grid, found = solved(scheme)
    latent = Latent.start(weight, found, grid, reach=0.49)
    same = latent.chosen()
    assert found.codes is not None and same.codes is not None
    assert torch.equal(decode(same.codes), decode(found.codes))
    assert torch.equal(same.scale, found.scale) and same.scale.dtype == found.scale.dtype
    assert torch.equal(same.weight, found.weight) and torch.equal(latent.weight(), found.weight)
    away = (latent.codes - latent.nearest()).abs()
    assert away.max() <= 0.49 + 1e-3 and away.max() > 0.3


@pytest.mark.parametrize("scheme", FORMATS)
def test_what_was_learned_is_of_the_format(scheme: str) -> None:
    weight, grid, found = solved(scheme)
    latent = Latent.start(weight, found, grid)
    draw = torch.Generator().manual_seed(0)
    for _ in range(40):
        dQ = torch.randn(weight.shape, generator=draw)
        latent.step(dQ, rate=0.3, scale_rate=0.002)
    chosen = latent.chosen()
    assert chosen.codes is not None and found.codes is not None
    values = decode(chosen.codes)
    assert not torch.equal(values, decode(found.codes))
    assert torch.equal(round_to(values, grid.codes), values)
    scale = chosen.scale.float()
    if latent.learns_scale:
        assert not torch.equal(scale, found.scale.float())
        assert torch.equal(round_to(scale, grid.scales), scale)
    else:
        assert torch.equal(scale, found.scale.float())
    assert torch.equal(chosen.weight, latent.weight())


@pytest.mark.parametrize("scheme", ["w4a16", "w4a16_asym", "nvfp4"])
def test_gradients_are_those_of_autograd_with_rounding_straight_through(scheme: str) -> None:
    """L = |X Q^T - Y|^2 / 2 in float64; k and r are leaves, round(x) is x + const in backward."""
    weight, grid, found = solved(scheme)
    latent = Latent.start(weight, found, grid)
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(50, COLUMNS, generator=draw, dtype=torch.float64)
    Y = torch.randn(50, ROWS, generator=draw, dtype=torch.float64)
    k = latent.codes.double().requires_grad_()
    r = latent.ratio.double().requires_grad_()
    nearest = latent.nearest().double()
    if latent.rungs is None:
        through = k + (nearest - k).detach()
        zero = latent.zero.double().repeat_interleave(COLUMNS // latent.zero.shape[1], dim=1)
        v = through - zero
    else:
        rungs = latent.rungs.double()
        place = nearest.long()
        left, right = (place - 1).clamp(min=0), (place + 1).clamp(max=len(rungs) - 1)
        slope = (rungs[right] - rungs[left]) / (right - left)
        v = rungs[place] + slope * (k - k.detach())
    stored = latent.scale.double()
    s = stored * (r.reshape(stored.shape) - r.detach().reshape(stored.shape) + 1)
    Q = v * s.repeat_interleave(COLUMNS // stored.shape[1], dim=1)
    error = X @ Q.T - Y
    (error.square().sum() / 2).backward()
    by_code, by_ratio = latent.gradients((error.detach().T @ X).float())
    assert k.grad is not None and r.grad is not None and by_ratio is not None
    torch.testing.assert_close(by_code.double(), k.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_ratio.double(), r.grad, rtol=1e-4, atol=1e-3)


def test_adam_is_the_papers_in_float64() -> None:
    draw = torch.Generator().manual_seed(2)
    gradients = torch.randn(6, 5, generator=draw)
    value = torch.zeros(5)
    adam = Adam.of(value)
    theta, m, v = (torch.zeros(5, dtype=torch.float64) for _ in range(3))
    for t, g in enumerate(gradients, start=1):
        adam.step(value, g, 0.1)
        m = BETAS[0] * m + (1 - BETAS[0]) * g.double()
        v = BETAS[1] * v + (1 - BETAS[1]) * g.double() ** 2
        theta -= 0.1 * (m / (1 - BETAS[0] ** t)) / (v / (1 - BETAS[1] ** t)).sqrt()
    torch.testing.assert_close(value.double(), theta, rtol=1e-5, atol=1e-6)


def test_places_of_uneven_values() -> None:
    args = group("nvfp4").weights
    assert args is not None
    rungs = ladder(grid_of(args).codes)
    assert rungs.tolist()[7:] == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0] and len(rungs) == 15
    found = place_of(torch.tensor([0.0, 0.25, 2.5, 6.0, 7.0, -6.0]), rungs)
    assert found.tolist() == [7.0, 7.5, 11.5, 14.0, 14.5, 0.0]
