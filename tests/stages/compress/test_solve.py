"""Solving several weights at once changes when things are done, not what comes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs

from stages.compress.grid import grid_of
from stages.compress.grid_kernels import as_float32
from stages.compress.observers.search_kernels import best_scale, best_scale_of_short
from stages.compress.solve import SMALL, fitting, side_by_side
from stages.compress.solvers.gptq import gptq

W4 = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def solve(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(400, 96, generator=random)
    inputs = torch.randn(500, 96, generator=random)
    return gptq(weight, inputs.T @ inputs, grid_of(W4)).weight


@pytest.mark.usefixtures("two_threads")
def test_side_by_side_gives_the_same_bytes_in_the_same_order() -> None:
    work = [partial(solve, seed) for seed in range(5)]
    alone = list(side_by_side(work, 1))
    for at_once in (2, 3):
        together = list(side_by_side(work, at_once))
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_trouble_reaches_the_caller_and_nothing_more_is_begun() -> None:
    begun: list[int] = []
    held = threading.Event()

    def one(number: int) -> int:
        begun.append(number)
        if number == 0:
            raise ValueError("no. 0")
        held.wait(5)
        return number

    work: list[Callable[[], int]] = [partial(one, number) for number in range(20)]
    found = side_by_side(work, 2)
    with pytest.raises(ValueError, match=r"no\. 0"):
        held.set()
        next(found)
    assert len(begun) < 20
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_as_many_fit_as_their_elements_and_the_threads_allow() -> None:
    assert fitting([SMALL]) == 1
    assert fitting([SMALL, 1]) == 1
    assert fitting([SMALL // 2, SMALL // 2, 1]) == 2
    torch.set_num_threads(1)
    assert fitting([1, 1]) == 1


@pytest.mark.parametrize("norm", [2.0, 2.4])
@pytest.mark.parametrize("kind", ["int", "float"])
@pytest.mark.parametrize("count", [1, 63, 64, 150])
def test_scales_side_by_side_are_those_found_one_by_one(norm: float, kind: str, count: int) -> None:
    args = QuantizationArgs(num_bits=4, type=kind, symmetric=True, strategy="group", group_size=16)
    random = torch.Generator().manual_seed(count)
    x, w = torch.randn(count, 16, generator=random), torch.rand(3, 16, generator=random)
    scale = x.abs().amax(dim=1, keepdim=True) / 7 * torch.linspace(1.1, 0.4, 9)
    given = [t.contiguous().numpy() for t in (x, scale, torch.zeros_like(scale), w)]
    found = []
    for kernel in (best_scale, best_scale_of_short):
        best = torch.full((count,), -1)
        kernel(*given, 0, count, best.numpy(), norm, as_float32(grid_of(args, torch.float32).codes))
        found.append(best)
    assert (found[0] == found[1]).float().mean() > 0.98  # sums in another order may tie otherwise
