"""GPTQ against its paper in float64, and what must hold for every weight."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.compress.grid import Grid, column_scale, expand, grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.output_error import relative_error
from stages.compress.solvers.rtn import rtn
from tests.stages.compress.solvers.reference import damped, gptq_paper, int4, objective, problem

NVFP4 = QuantizationArgs(
    num_bits=4,
    type="float",
    strategy="tensor_group",
    group_size=16,
    scale_dtype=torch.float8_e4m3fn,
    zp_dtype=torch.float8_e4m3fn,
)


@pytest.mark.parametrize("actorder", ["static", "none"])
@pytest.mark.parametrize("group_size", [32, None])
def test_equals_the_paper_in_float64(actorder: str, group_size: int | None) -> None:
    weight, H = problem(rows=64, columns=192)
    grid = grid_of(int4(group_size))
    ours = gptq(
        weight, H, grid, actorder=actorder, observer="minmax", refit=0, descent=0, block_size=64
    )
    scale, _ = expand(minmax.observe(weight, grid), grid, 64)
    order = (
        torch.argsort(H.diagonal(), descending=True, stable=True)
        if actorder == "static"
        else torch.arange(192)
    )
    paper = gptq_paper(weight, H, scale[:, column_scale(grid, 192)], order)
    # one rounding that float32 tips the other way changes the rest of its row: compare rows
    same = (ours.weight.double() - paper).abs().amax(dim=1) < 1e-6
    assert same.float().mean() > 0.9
    metric = damped(H)
    ratio = objective(weight, ours.weight, metric) / objective(weight, paper, metric)
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_stacking_weights_changes_nothing() -> None:
    weight, H = problem(rows=300, columns=128)
    other, _ = problem(rows=75, columns=128, seed=5)
    whole = gptq(torch.cat([weight, other]), H, grid_of(int4()))
    parts = [gptq(weight, H, grid_of(int4())), gptq(other, H, grid_of(int4()))]
    assert torch.allclose(whole.weight, torch.cat([p.weight for p in parts]), atol=1e-7)
    assert torch.equal(whole.scale, torch.cat([p.scale for p in parts]))


@pytest.mark.parametrize("args", [int4(), int4(None), int4(symmetric=False), NVFP4])
def test_same_bytes_for_any_number_of_threads(args: QuantizationArgs) -> None:
    weight, H = problem(rows=400, columns=320)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(gptq(weight, H, grid_of(args)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert torch.equal(result.weight, results[0].weight)
        assert torch.equal(result.scale, results[0].scale)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 40),
    bits=st.integers(2, 8),
    symmetric=st.booleans(),
    group_size=st.sampled_from([16, 64, None]),
)
def test_beats_rounding_with_the_same_scales(
    seed: int, rows: int, bits: int, symmetric: bool, group_size: int | None
) -> None:
    weight, H = problem(rows=rows, columns=64, seed=seed)
    args = int4(group_size, symmetric=symmetric, bits=bits)
    rounded = rtn(weight.float(), grid_of(args), minmax.observe(weight, grid_of(args)))
    solved = gptq(weight, H, grid_of(args), observer="minmax", refit=0, descent=0)
    assert torch.equal(solved.scale, rounded.scale)
    metric = damped(H)
    assert objective(weight, solved.weight, metric) < objective(weight, rounded.weight, metric)


# Asymmetric ranges gain least: the zero point already spends what a symmetric range wastes.
@pytest.mark.parametrize(
    ("args", "share"),
    [(int4(64), 0.85), (int4(64, bits=3), 0.8), (int4(64, symmetric=False), 0.93), (NVFP4, 0.7)],
    ids=["int4", "int3", "int4 asymmetric", "nvfp4"],
)
def test_defaults_beat_plain_gptq(args: QuantizationArgs, share: float) -> None:
    weight, H = problem(rows=96, columns=256)
    plain = gptq(weight, H, grid_of(args), observer="minmax", refit=0, descent=0)
    ours = gptq(weight, H, grid_of(args))
    error = relative_error(weight, ours.weight, H)
    assert error < share * relative_error(weight, plain.weight, H)


@pytest.mark.parametrize("args", [int4(), int4(None), int4(64, symmetric=False), NVFP4])
@pytest.mark.parametrize(("refit", "descent"), [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_reported_losses_are_those_of_the_result(
    args: QuantizationArgs, refit: int, descent: int
) -> None:
    weight, H = problem(rows=250, columns=320)
    found = gptq(weight, H, grid_of(args), refit=refit, descent=descent)
    assert found.losses is not None
    w, metric = weight.double(), H.double()
    e = w - found.weight.double()
    exact = torch.stack([((e @ metric) * e).sum(dim=1), ((w @ metric) * w).sum(dim=1)], dim=1)
    assert torch.allclose(found.losses.double(), exact, rtol=2e-3)


def test_conditional_scales_cost_less_in_the_metric_than_minmax_scales() -> None:
    weight, H = problem(rows=96, columns=256)
    errors = [
        relative_error(
            weight, gptq(weight, H, grid_of(int4(64)), observer=name, refit=0, descent=0).weight, H
        )
        for name in ("minmax", "gram", "conditional")
    ]
    assert errors[1] < errors[0]
    assert errors[2] < errors[0]


def test_scale_of_the_gram_matrix_does_not_matter() -> None:
    weight, H = problem()
    assert torch.equal(
        gptq(weight, H, grid_of(int4())).weight, gptq(weight, H / 1024, grid_of(int4())).weight
    )


def test_dead_columns_are_rounded_and_cost_nothing_elsewhere() -> None:
    weight, H = problem(rows=24, columns=128)
    dead = torch.tensor([3, 64, 127])
    H[dead, :] = 0
    H[:, dead] = 0
    quantized = gptq(weight, H, grid_of(int4()), observer="minmax", refit=0, descent=0)
    rounded = rtn(weight.float(), grid_of(int4()), minmax.observe(weight, grid_of(int4())))
    assert torch.equal(quantized.weight[:, dead], rounded.weight[:, dead])
    assert torch.isfinite(gptq(weight, H, grid_of(int4())).weight).all()


def test_global_scale_given_by_the_caller_is_kept() -> None:
    weight, H = problem()
    shared = torch.tensor([3000.0])
    quantized = gptq(weight, H, grid_of(NVFP4), global_scale=shared)
    assert quantized.global_scale is not None
    assert torch.equal(quantized.global_scale, shared)


def test_trouble_is_an_error_never_a_rounded_weight() -> None:
    weight, H = problem(rows=4)
    hole = H.clone()
    hole[2, 3] = float("nan")
    with pytest.raises(NumericalError, match="non-finite"):
        gptq(weight, hole, grid_of(int4()))
    with pytest.raises(NumericalError, match="no input channel"):
        gptq(weight, torch.zeros_like(H), grid_of(int4()))
    with pytest.raises(NumericalError, match="dampening_frac"):
        gptq(weight, torch.diag(H.diagonal()) + 4 * (H - torch.diag(H.diagonal())), grid_of(int4()))
    broken = weight.clone()
    broken[0, 0] = float("inf")
    with pytest.raises(NumericalError, match="weight"):
        gptq(broken, H, grid_of(int4()))
    with pytest.raises(ValueError, match="static or none"):
        gptq(weight, H, grid_of(int4()), actorder="group")


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_scales_of_either_sign_bring_the_error_down(bits: int) -> None:
    weight, H = problem(rows=64, columns=192)
    grid = grid_of(int4(32, bits=bits))
    positive, either = gptq(weight, H, grid), gptq(weight, H, grid.signed())
    assert bool((positive.scale > 0).all()) and bool((either.scale < 0).any())
    assert either.codes is not None
    scale = either.scale.float().repeat_interleave(32, dim=1)
    assert torch.equal(either.weight, either.codes.float() * scale)
    assert either.codes.min() == -(2 ** (bits - 1)) and either.codes.max() <= 2 ** (bits - 1) - 1
    metric = damped(H)
    ratio = objective(weight, either.weight, metric) / objective(weight, positive.weight, metric)
    assert ratio < {2: 0.9, 3: 0.9, 4: 0.95, 8: 1.01}[bits]


def test_mirrored_weights_have_scales_of_the_other_sign() -> None:
    weight, H = problem(rows=64, columns=192)
    weight, grid, metric = weight.abs(), grid_of(int4(32)).signed(), damped(H)
    above, below = gptq(weight, H, grid), gptq(-weight, H, grid)
    assert bool((below.scale > 0).all())  # ties go to the positive one
    assert (above.scale < 0).float().mean() > 0.8
    ratio = objective(weight, above.weight, metric) / objective(weight, -below.weight, metric)
    assert ratio == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("grid", [grid_of(NVFP4), grid_of(int4(32, symmetric=False))])
def test_other_formats_have_positive_scales_only(grid: Grid) -> None:
    assert grid.signed() == grid
