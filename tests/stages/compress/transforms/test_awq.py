"""AWQ's factors, the loss of candidates in float64, and logarithmic equalization."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stages.compress.grid import grid_of
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.rtn import rtn
from stages.compress.transforms.awq import awq_scales, ratios, weight_magnitudes
from stages.compress.transforms.candidate_loss import (
    PANEL,
    Candidate,
    InputErrors,
    folded,
    losses,
    quadratic_form,
    rounding_errors,
)
from stages.compress.transforms.log_equalization import log_equalization_scales
from stages.schemes.quant_args import QArgs

FORMATS = {
    "group": QArgs(num_bits=4, strategy="group", group_size=16),
    "asymmetric": QArgs(num_bits=3, strategy="group", group_size=16, symmetric=False),
    "channel": QArgs(num_bits=4, strategy="channel"),
    "tensor": QArgs(num_bits=8, type="float", strategy="tensor"),
    "block": QArgs(num_bits=8, type="float", strategy="block", block_structure=[16, 16]),
    "nvfp4": QArgs(
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        scale_dtype="float8_e4m3fn",
    ),
    "mxfp4": QArgs(num_bits=4, type="float", strategy="group", group_size=32, scale_dtype="uint8"),
}


def inputs(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(columns, generator=generator).exp() ** 3
    mixed = torch.randn(columns, columns, generator=generator) / columns**0.5
    x = torch.randn(rows, columns, generator=generator)
    return (x + x @ mixed) * spread


def test_factors_are_those_of_the_paper() -> None:
    x, w = torch.tensor([4.0, 1.0, 0.25]), torch.tensor([0.5, 0.25, 0.125])
    plain = awq_scales(x, w, 0.5, duo_scaling=False)
    torch.testing.assert_close(plain, torch.tensor([2.0, 1.0, 0.5]))
    duo = awq_scales(x, w, 0.5, duo_scaling=True)
    wanted = x.sqrt() / w.sqrt()
    torch.testing.assert_close(duo, wanted / (wanted.max() * wanted.min()).sqrt())
    assert ratios(4) == [0.0, 0.25, 0.5, 0.75]


def test_a_dead_channel_stays_and_moves_no_other() -> None:
    x, w = torch.tensor([4.0, 1.0, 0.0, 1.0]), torch.tensor([0.5, 0.25, 0.5, 0.0])
    found = awq_scales(x, w, 0.5, duo_scaling=True)
    assert found[2:].tolist() == [1.0, 1.0]
    assert torch.equal(found[:2], awq_scales(x[:2], w[:2], 0.5, duo_scaling=True))
    assert awq_scales(torch.zeros(3), w[:3], 0.5, duo_scaling=True).tolist() == [1.0] * 3


def test_means_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(NumericalError, match="not finite"):
        awq_scales(torch.tensor([1.0, torch.inf]), torch.ones(2), 0.5, duo_scaling=True)


def test_weights_count_relative_to_what_shares_their_scale() -> None:
    weight = torch.tensor([[1.0, -2.0, 30.0, 10.0], [0.0, 0.0, -1.0, 4.0]])
    assert weight_magnitudes(weight, 2).tolist() == pytest.approx([0.5, 1.0, 1.25, 4 / 3])
    assert weight_magnitudes(weight, 4)[2] == pytest.approx(1.25)


@pytest.mark.parametrize("columns", [5, PANEL, PANEL + 3, 2 * PANEL + 40])
def test_a_quadratic_form_takes_half_of_the_products(columns: int) -> None:
    x, E = inputs(columns + 9, columns), torch.randn(7, columns)
    G = x.T @ x
    exact = ((E.double() @ G.double()) * E.double()).sum()
    torch.testing.assert_close(quadratic_form(E, folded(G)), exact, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("quantized", [False, True], ids=["weights", "inputs too"])
def test_losses_are_those_of_forwards_in_float64(name: str, quantized: bool) -> None:
    grid, observe = grid_of(FORMATS[name], torch.float32), OBSERVERS["minmax"]
    weight, x = torch.randn(96, 64, generator=torch.Generator().manual_seed(1)), inputs(90, 64)
    scales = [torch.ones(64), x.abs().mean(dim=0).sqrt(), x.abs().mean(dim=0)]
    candidates, wanted = [], []
    for s in scales:
        rounded = (x / s / 0.1).round() * 0.1 if quantized else x / s
        known = InputErrors(rows=x, errors=x - rounded * s, weight=1.0) if quantized else None
        candidates.append(Candidate(s=s, inputs=known))
        scaled = weight * s
        chosen = rtn(scaled, grid, observe(scaled, grid)).weight
        difference = x.double() @ weight.double().T - rounded.double() @ chosen.double().T
        wanted.append(float(difference.square().sum()))
    found = losses(weight, folded(x.T @ x), candidates, grid, observe)
    assert found.tolist() == pytest.approx(wanted, rel=2e-4)


def test_tiles_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.compress.transforms import candidate_loss

    grid, x = grid_of(FORMATS["nvfp4"], torch.float32), inputs(40, 64)
    weight = torch.randn(160, 64, generator=torch.Generator().manual_seed(1))
    candidates = [Candidate(s=torch.ones(64)), Candidate(s=x.abs().mean(dim=0))]

    def found() -> Tensor:
        return losses(weight, folded(x.T @ x), candidates, grid, OBSERVERS["minmax"])

    whole = found()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        assert torch.equal(found(), whole)
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr(candidate_loss, "MOST", 64)
    torch.testing.assert_close(found(), whole, rtol=1e-6, atol=0)


def test_outliers_shrink_to_their_logarithms() -> None:
    x = torch.tensor([2.0, 14.0, 0.0, torch.inf])
    s = log_equalization_scales(x)
    torch.testing.assert_close(s, torch.tensor([1.0, 3.5, 1.0, 1.0]))
    torch.testing.assert_close((x / s)[:2], torch.log2(2 + x[:2]))


@pytest.mark.parametrize("name", FORMATS)
def test_the_compiled_pass_gives_what_rtn_gives(name: str) -> None:
    grid, s = (
        grid_of(FORMATS[name]),
        torch.rand(64, generator=torch.Generator().manual_seed(2)) + 0.2,
    )
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(1))
    qparams = OBSERVERS["minmax"](weight * s, grid)
    exact = weight - rtn(weight * s, grid, qparams).weight / s
    assert torch.equal(rounding_errors(weight, weight * s, s, qparams, grid), exact)
