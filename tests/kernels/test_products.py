"""Products in TF32: plain torch and the Triton kernel against float64 of operands in TF32."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.products import add_product, product, rounded_to_tf32
from stages.compute.loops import Loops
from tests.kernels.cases import assert_same, by, grid, running
from tests.stages.compress.solvers.reference import objective, problem

SHAPES = [(1, 1, 1), (64, 128, 32), (65, 130, 33), (40, 7, 200), (130, 20, 16)]


@pytest.fixture(params=["torch", pytest.param("triton", marks=pytest.mark.triton)])
def which(request: pytest.FixtureRequest) -> Loops:
    if request.param == "triton":
        request.getfixturevalue("interpreter")
    loops: Loops = request.param
    return loops


def in_tf32(x: Tensor) -> Tensor:
    """float64 of the nearest number with 11 significant bits: no bit of ours is looked at."""
    fraction, exponent = np.frexp(x.double().numpy())
    return torch.from_numpy(np.ldexp(np.rint(fraction * 2048) / 2048, exponent))


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        (1 + 2.0**-10, 1 + 2.0**-10),
        (1 + 2.0**-11, 1.0),  # ties to even
        (1 + 3 * 2.0**-11, 1 + 2.0**-9),
        (-(1 + 2.0**-11 + 2.0**-23), -(1 + 2.0**-10)),
        (-0.0, -0.0),
        (2.0**-126, 2.0**-126),
        (3.4028234e38, math.inf),
        (-math.inf, -math.inf),
        (math.nan, math.nan),
    ],
)
def test_a_number_becomes_the_nearest_tf32(given: float, nearest: float) -> None:
    found = float(rounded_to_tf32(torch.tensor([given])))
    assert found == nearest or (math.isnan(found) and math.isnan(nearest))
    assert math.copysign(1, found) == math.copysign(1, nearest)


def test_a_nan_of_any_bits_stays_one() -> None:
    bits = torch.tensor([0x7FFFFFFF, 0x7F800001, -1, -0x7FFFFF], dtype=torch.int32)
    assert bool(rounded_to_tf32(bits.view(torch.float32)).isnan().all())


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_that_of_operands_in_tf32(
    which: Loops, shape: tuple[int, int, int], transposed: bool
) -> None:
    m, n, k = shape
    generator = torch.Generator().manual_seed(m + n + k)
    wide = torch.randn(k, m + 9, generator=generator) if transposed else None
    A = torch.randn(m, k + 9, generator=generator)[:, 3 : 3 + k] if wide is None else wide[:, 5:].T
    A = A[:m]
    B, start = (torch.randn(rows, n, generator=generator) for rows in (k, m))
    with running(which):
        found = add_product(start.clone(), A, B, alpha=-1, tf32=True)
        alone = product(A, B, tf32=True)
    exact = in_tf32(A) @ in_tf32(B)
    # rounding of sums in float32; that of operands would be more than ten times as much
    bound = 2.0**-23 * math.sqrt(k + 8) * (A.double().abs() @ B.double().abs() + start.abs())
    assert bool(((found - (start - exact)).abs() <= bound).all())
    assert bool(((alone - exact).abs() <= bound).all())
    if k > 1:
        unrounded = A.double() @ B.double()
        assert ((alone - exact).norm() * 20 < (unrounded - exact).norm()).item()


def test_a_product_with_nothing_in_it_is_nothing(which: Loops) -> None:
    with running(which):
        for m, n, k in ((0, 3, 4), (3, 0, 4), (3, 4, 0)):
            out = torch.ones(m, n)
            add_product(out, torch.ones(m, k), torch.ones(k, n), tf32=True)
            assert torch.equal(out, torch.ones(m, n))


def test_what_is_not_finite_is_not_finite_in_the_product(which: Loops) -> None:
    A = torch.ones(3, 4)
    A[0, 1], A[1, 2] = math.nan, math.inf
    with running(which):
        found = product(A, torch.ones(4, 2), tf32=True)
    assert found.isfinite().all(dim=1).tolist() == [False, False, True]


@pytest.mark.triton
@pytest.mark.usefixtures("interpreter")
@pytest.mark.parametrize("name", ["int4 g32", "int4 channel", "nvfp4"])
def test_gptq_in_tf32_chooses_the_same_codes(name: str) -> None:
    weight, H = problem(rows=23, columns=96)

    def solve() -> object:
        return gptq(weight, H, grid(name), block_size=32, tf32=True)

    assert_same(by("triton", solve), by("torch", solve))


@pytest.mark.parametrize("name", ["int4 g32", "int4 channel", "int8 channel", "nvfp4"])
def test_gptq_in_tf32_is_nearly_as_good(name: str) -> None:
    weight, H = problem(rows=64, columns=256)
    found, exact = (
        by("torch", partial(gptq, weight, H, grid(name), block_size=32, tf32=tf32))
        for tf32 in (True, False)
    )
    assert not torch.equal(found.weight, exact.weight)  # or the option did nothing
    true = objective(weight, found.weight, H)
    assert true < 1.01 * objective(weight, exact.weight, H)
    assert found.losses is not None and exact.losses is not None
    told, known = found.losses.double().sum(dim=0).tolist()
    assert told == pytest.approx(true, rel=0.02)
    assert known == pytest.approx(float(exact.losses[:, 1].double().sum()), rel=1e-3)


def test_no_setting_of_the_process_is_touched() -> None:
    weight, H = problem(rows=8, columns=64)
    before = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
    by("torch", lambda: gptq(weight, H, grid("int4 g32"), tf32=True))
    after = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
    assert after == before
