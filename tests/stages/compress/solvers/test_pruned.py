"""Solvers keep the zeros of a pruned weight, and make up for what was pruned."""

from __future__ import annotations

import pytest
import torch

from stages.compress.grid import grid_of
from stages.compress.modifiers import Gptq, Rtn, SparseGpt, Wanda
from stages.compress.modifiers.base import Problem
from stages.compress.solvers.output_error import relative_error
from stages.schemes.quant_args import QArgs
from tests.kernels.cases import by
from tests.stages.compress.pruning.test_pruning import problem

FORMATS = {
    "int4 g8": QArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=8),
    "int4 g8 asymmetric": QArgs(
        num_bits=4, type="int", symmetric=False, strategy="group", group_size=8
    ),
    "int8 channel": QArgs(num_bits=8, type="int", symmetric=True, strategy="channel"),
    "fp8 channel": QArgs(num_bits=8, type="float", symmetric=True, strategy="channel"),
}


def posed(name: str, pruner: SparseGpt | Wanda) -> Problem:
    weight, H = problem()
    grid = grid_of(FORMATS[name], torch.float32)
    return Problem(weight=weight, H=H, grid=grid, global_scale=None, pruned=pruner.prune(weight, H))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("solver", [Gptq(), Gptq(block_size=8, descent=2), Rtn()])
def test_zeros_stay_zeros(name: str, solver: Gptq | Rtn) -> None:
    given = posed(name, Wanda(mask_structure="2:4"))
    assert given.pruned is not None
    found = solver.solve(given)
    assert not bool(found.weight[given.pruned == 0].any())
    assert found.codes is not None
    zero = 0 if found.zero_point is None else found.zero_point.repeat_interleave(8, dim=1)
    stored = found.codes.float() == (torch.as_tensor(zero).float())
    assert bool(stored[given.pruned == 0].all())


@pytest.mark.parametrize("pruner", [Wanda(mask_structure="2:4"), SparseGpt(mask_structure="2:4")])
def test_gptq_makes_up_for_what_was_pruned(pruner: Wanda | SparseGpt) -> None:
    given = posed("int8 channel", pruner)
    assert given.pruned is not None and given.H is not None
    lost = relative_error(given.weight, given.pruned, given.H)
    rounded = relative_error(given.weight, Rtn().solve(given).weight, given.H)
    solved = Gptq().solve(given)
    found = relative_error(given.weight, solved.weight, given.H)
    assert found < rounded
    assert found < 1.02 * lost  # at 8 bits rounding costs next to nothing
    assert solved.losses is not None
    told = float(solved.losses[:, 0].sum() / solved.losses[:, 1].sum())
    assert told == pytest.approx(found, rel=1e-2)


@pytest.mark.parametrize("name", ["int4 g8", "int4 g8 asymmetric"])
def test_compiled_loops_and_torch_choose_the_same_codes(name: str) -> None:
    given, solver = posed(name, SparseGpt(mask_structure="2:4")), Gptq(descent=2)
    compiled = solver.solve(given)
    plain = by("torch", lambda: solver.solve(given))
    assert compiled.codes is not None and plain.codes is not None
    assert float((compiled.codes == plain.codes).float().mean()) > 0.99
