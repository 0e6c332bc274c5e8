"""Descent lowers the error at every sweep; compiled and torch loops agree."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.compress.grid import Grid, column_scale, expand, grid_of
from stages.compress.observers import minmax
from stages.compress.solvers import gptq_blocks as blocks
from stages.compress.solvers import gptq_blocks_torch as blocks_torch
from stages.compress.solvers.cholesky import Damped
from stages.compress.solvers.coordinate_descent import descend
from stages.compress.solvers.gptq_arrays import Columns, Descent, Params, Sweep
from stages.compress.solvers.rtn import rtn
from tests.stages.compress.solvers.reference import int4, objective, problem


def _state(
    rows: int, columns: int, group_size: int | None, symmetric: bool, seed: int
) -> tuple[Tensor, Tensor, Grid, Tensor, Tensor, Tensor, Tensor, Tensor]:
    weight, H = problem(rows=rows, columns=columns, seed=seed)
    grid = grid_of(int4(group_size, symmetric=symmetric))
    qparams = minmax.observe(weight, grid)
    scale, zero = (t.T.contiguous() for t in expand(qparams, grid, rows))
    column = column_scale(grid, columns)
    start = rtn(weight.float(), grid, qparams).weight
    code = (start.T / scale[column]).round().contiguous()
    gradient = ((weight.float() - start) @ H).T.contiguous()
    return weight.float(), H, grid, column, scale, zero, code, gradient


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 50),
    group_size=st.sampled_from([16, 64, None]),
    symmetric=st.booleans(),
    refits=st.booleans(),
    descends=st.booleans(),
)
def test_no_sweep_raises_the_error(
    seed: int, rows: int, group_size: int | None, symmetric: bool, refits: bool, descends: bool
) -> None:
    weight, H, grid, column, scale, zero, code, gradient = _state(
        rows, 128, group_size, symmetric, seed
    )
    errors = [objective(weight, (code * scale[column]).T, H)]
    for _ in range(3):
        gradient = ((weight - (code * scale[column]).T) @ H).T.contiguous()
        gained = descend(
            code,
            gradient,
            Params(scale, zero, column, grid.width(128)),
            Damped(H=H, diagonal=H.diagonal(), amount=0.0),
            grid,
            refit=int(refits),
            descent=int(descends),
            multiplier=1.0,
            block_size=16,
        )
        errors.append(objective(weight, (code * scale[column]).T, H))
        change = pytest.approx(errors[-1] - errors[-2], rel=1e-3, abs=1e-5 * errors[0])
        assert float(gained.double().sum()) == change
        codes = code + zero[column]
        assert codes.min() >= -8
        assert codes.max() <= 7
        assert torch.equal(codes, codes.round())
        assert torch.equal(scale, scale.bfloat16().float())
    for before, after in pairwise(errors):
        assert after <= before * (1 + 1e-5)


@pytest.mark.parametrize("onward", [True, False])
@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
def test_torch_and_compiled_descent_agree(refit: bool, symmetric: bool, onward: bool) -> None:
    _, H, grid, column, scale, zero, code, gradient = _state(40, 64, 16, symmetric, 3)
    results = []
    for solve in (blocks.descend_block, blocks_torch.descend_block):
        mine = [t.clone() for t in (code, gradient, scale)]
        change, gained = torch.empty_like(code), torch.zeros_like(code[0])
        solve(
            Descent(mine[0], mine[1], change, gained),
            H,
            Params(mine[2], zero, column, 16),
            Sweep(refit=refit, descend=True, onward=onward, multiplier=1.0),
            grid.codes,
            grid.scales,
        )
        results.append([*mine, change, gained])
    (code, gradient, scale, change, gained), other = results
    same = (code == other[0]).all(dim=0) & (scale == other[2]).all(dim=0)
    assert same.float().mean() > 0.9  # a rounding on the edge may tip a whole row
    if not onward:
        assert torch.allclose(gradient[:, same], other[1][:, same], rtol=1e-3, atol=1e-2)
    assert torch.allclose(change[:, same], other[3][:, same], atol=1e-5)
    assert torch.allclose(gained[same], other[4][same], rtol=1e-3, atol=1e-2)
    assert bool((gained < 0).any())


def test_torch_and_compiled_gptq_agree() -> None:
    weight, H, grid, column, scale, zero, _, _ = _state(40, 64, 16, True, 4)
    factor = torch.linalg.cholesky(H).T.contiguous()
    w = weight.T.contiguous()
    results = []
    for solve in (blocks.nearest_plane_block, blocks_torch.nearest_plane_block):
        carried, code, error = torch.zeros_like(w), torch.empty_like(w), torch.empty_like(w)
        columns, params = Columns(w, carried, code, error), Params(scale, zero, column, 16)
        solve(columns, factor, params, grid.codes)
        results.append((carried, code))
    same = (results[0][1] == results[1][1]).all(dim=0)
    assert same.float().mean() > 0.9
    assert torch.allclose(results[0][0][:, same], results[1][0][:, same], rtol=1e-3, atol=1e-2)
