"""The loop of learned rounding on a block that is one matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from stages.compress.grid import grid_of
from stages.compress.learning.latent import Latent
from stages.compress.learning.learn import Learned, Schedule, batches, learn, split
from stages.compress.modifiers import AutoRound, Gptq
from stages.compress.modifiers.base import Problem
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from tests.stages.compress.solvers.reference import problem
from tests.stages.schemes.presets import group

SCHEDULE = Schedule(iterations=40, rate=0.01, scale_rate=0.002, batch_size=4, held_out=0.2, seed=0)


@dataclass
class Product:
    """Y = X W^T for each sequence X of `inputs` [n, T, in]; the target is that of `original`."""

    inputs: Tensor
    original: Tensor
    weight: Tensor
    gradient: Tensor | None = None

    @property
    def sequences(self) -> int:
        return len(self.inputs)

    def put(self, name: str, weight: Tensor) -> None:
        self.weight = weight

    def loss(self, sequences: Sequence[int]) -> float:
        error = self.inputs[list(sequences)] @ (self.weight - self.original).T
        return float(error.square().mean())

    def backward(self, sequences: Sequence[int], unit: float) -> None:
        X = self.inputs[list(sequences)].flatten(0, 1)
        self.gradient = (self.weight - self.original) @ (X.T @ X) / unit

    def take_gradient(self, name: str) -> Tensor | None:
        found, self.gradient = self.gradient, None
        return found


def learned(schedule: Schedule, sequences: int = 20) -> Learned:
    weight, _ = problem(rows=32, columns=128)
    draw = torch.Generator().manual_seed(0)
    mixing = torch.randn(128, 128, generator=draw)
    block = Product(torch.randn(sequences, 64, 128, generator=draw) @ mixing, weight, weight)
    args = group("w4a16").weights
    assert args is not None
    grid = grid_of(args)
    start = rtn(weight, grid, minmax.observe(weight, grid))
    latent = Latent.start(weight, start, grid)
    return learn(block, {"m": latent}, schedule, lambda share: None)


def test_rounding_on_what_is_computed_beats_rounding_to_nearest() -> None:
    found = learned(SCHEDULE)
    assert found.after < 0.85 * found.before
    assert found.kept > 0 and found.modules.keys() == {"m"}


def test_with_nothing_held_out_the_last_step_is_kept_if_it_is_better() -> None:
    found = learned(replace(SCHEDULE, held_out=0.0))
    assert found.kept == found.iterations == 40 and found.after < 0.85 * found.before
    wild = replace(SCHEDULE, held_out=0.0, iterations=8, rate=1.0, scale_rate=0.1)
    found = learned(wild)
    assert found.kept == 0 and found.after == found.before and not found.modules
    training, held = split(5, replace(SCHEDULE, held_out=0.0))
    assert training == [0, 1, 2, 3, 4] and held == []


def test_the_same_seed_gives_the_same() -> None:
    one, same = learned(SCHEDULE), learned(SCHEDULE)
    assert torch.equal(one.modules["m"].weight, same.modules["m"].weight)
    assert (one.before, one.after, one.kept) == (same.before, same.after, same.kept)


def test_without_iterations_a_weight_is_solved_by_gptq() -> None:
    weight, H = problem(rows=32, columns=128)
    args = group("w4a16").weights
    assert args is not None
    given = Problem(weight=weight, H=H, grid=grid_of(args), global_scale=None)
    plain, same = Gptq().solve(given), AutoRound(iterations=0).solve(given)
    assert torch.equal(plain.weight, same.weight) and torch.equal(plain.scale, same.scale)
    assert not AutoRound(iterations=0).learns and AutoRound().outside() == Gptq()


def test_by_default_all_steps_make_half_a_code() -> None:
    for solver in (AutoRound(), AutoRound(iterations=200)):
        n = solver.iterations
        assert sum(solver.rate * (1 - i / n) for i in range(n)) == pytest.approx(0.5, abs=1 / n)
    assert AutoRound(lr=0.02).rate == 0.02 and AutoRound(iterations=0).rate == 1


def test_what_gets_worse_is_not_kept() -> None:
    wild = Schedule(iterations=8, rate=1.0, scale_rate=0.1, batch_size=1, held_out=0.2, seed=0)
    found = learned(wild)
    assert found.after == found.before and found.kept == 0 and not found.modules


@pytest.mark.parametrize(("count", "held"), [(2, 1), (16, 3), (128, 26)])
def test_held_out_sequences_are_never_in_a_batch(count: int, held: int) -> None:
    training, out = split(count, SCHEDULE)
    assert len(out) == held and sorted(training + out) == list(range(count))
    drawn = batches(training, SCHEDULE)
    seen = [next(drawn) for _ in range(2 * count)]
    assert all(len(batch) == 4 for batch in seen)
    assert {number for batch in seen for number in batch} == set(training)
