"""The Triton kernels, in the interpreter, against plain torch and the compiled loops."""

from __future__ import annotations

import pytest
import torch

from stages.compress.grid import round_to
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.observers.minmax import observe
from stages.compress.observers.range import bounds
from stages.compress.pruning.masks import Structure, largest_of
from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.gptq_arrays import Columns, Params
from stages.compress.solvers.gptq_blocks import nearest_plane_block
from stages.compress.solvers.rtn import nearest, rtn
from tests.kernels.cases import FORMATS, assert_same, by, grid, running, same_bits
from tests.kernels.hard_weights import hard_to_round
from tests.stages.compress.solvers.reference import problem

pytestmark = [pytest.mark.triton, pytest.mark.usefixtures("interpreter")]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("int4 g32", {}),
        ("int4 g32", {"actorder": "none"}),
        ("int4 g32", {"refit": 0}),
        ("int4 g32", {"descent": 0}),
        ("int4 g32 asymmetric", {"refit": 2, "descent": 2}),
        ("int4 g32 signed", {"refit": 2}),
        ("int3 g96", {}),
        ("int4 channel signed", {"block_size": 16}),
        ("int4 channel", {}),
        ("int4 channel", {"block_size": 16}),  # too wide for a block: scales are refit by rows
        ("fp8 channel", {}),
        ("fp8 block", {}),
        ("nvfp4", {"observer": "conditional"}),
        ("mxfp4", {}),
    ],
)
def test_gptq_chooses_the_same_codes(name: str, options: dict[str, object]) -> None:
    rows = 37 if not options else 23  # of two programs, or of one
    weight, H = problem(rows=rows, columns=96)

    def solve() -> object:
        return gptq(weight, H, grid(name), **{"block_size": 64, **options})

    found = by("triton", solve)
    assert_same(found, by("torch", solve))
    assert_same(found, by("compiled", solve))


@pytest.mark.parametrize("name", ["int4 g32", "int4 g32 asymmetric", "nvfp4"])
def test_gptq_keeps_the_same_zeros(name: str) -> None:
    weight, H = problem(rows=23, columns=96)
    pruned = torch.where(largest_of(weight.float().abs(), Structure(zeros=2, of=4)), weight, 0.0)

    def solve() -> object:
        return gptq(weight, H, grid(name), block_size=64, descent=2, pruned=pruned)

    found = by("triton", solve)
    assert not bool(found.weight[pruned == 0].any())
    assert_same(found, by("torch", solve))
    assert_same(found, by("compiled", solve))


def test_a_single_row_and_a_model_in_float32() -> None:
    weight, H = problem(rows=1, columns=96)

    def solve() -> object:
        return gptq(weight.float(), H, grid("int4 g32", torch.float32))

    found, other = by("triton", solve), by("compiled", solve)
    torch.testing.assert_close(found.weight, other.weight, rtol=1e-5, atol=0)  # scales are float32
    torch.testing.assert_close(found.scale, other.scale, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["int4 g32", "fp8 channel", "nvfp4", "int8 channel"])
def test_ties_go_to_even(name: str) -> None:
    codes = grid(name).codes
    top = min(codes.high + 2, 20.0)
    exact = torch.arange(-top, top, top / 512)
    tiny = torch.tensor([0.0, -0.0, 1e-30, 2.0**-10, 3 * 2.0**-10, 2.0**-9, 1000.0, -1000.0])
    W = torch.cat([exact, tiny, -tiny])[None].contiguous()
    rows = W.shape[1]
    columns = Columns(W, *(torch.zeros_like(W) for _ in range(3)))
    group = torch.zeros(1, dtype=torch.int64)
    params = Params(torch.ones(1, rows), torch.zeros(1, rows), group, 1)
    with running("triton"):
        nearest_plane_block(columns, torch.ones(1, 1), params, codes)
    assert torch.equal(columns.code, round_to(W, codes))


@pytest.mark.parametrize(
    ("name", "observer"),
    [
        *((name, "gram") for name in (*FORMATS, "int4 g32 signed")),
        *((name, "mse") for name in ("int4 g32", "nvfp4", "fp8 block")),
        *((name, "imatrix") for name in ("int4 g32 asymmetric", "mxfp4", "int8 tensor")),
        ("nvfp4", "nvfp4_expanded_mse"),
    ],
)
def test_observers_choose_the_same_scales(name: str, observer: str) -> None:
    weight, H = problem(rows=21, columns=96)

    def observed() -> object:
        return OBSERVERS[observer](weight, grid(name), importance=H.diagonal())

    found = by("triton", observed)
    for which in ("torch", "compiled"):
        other = by(which, observed)
        assert torch.equal(found.scale.float(), other.scale.float())
        if found.zero_point is not None:
            assert torch.equal(found.zero_point, other.zero_point)


@pytest.mark.parametrize("name", ["int8 tensor", "fp8 channel"])
def test_a_scale_of_many_values_is_searched_in_pieces(name: str) -> None:
    weight, H = problem(rows=9, columns=600)

    def observed() -> object:
        return OBSERVERS["gram"](weight, grid(name), importance=H.diagonal())

    assert torch.equal(by("triton", observed).scale, by("compiled", observed).scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", FORMATS)
def test_the_nearest_codes_are_the_same(name: str, dtype: torch.dtype) -> None:
    weight = hard_to_round(name, dtype)
    qparams = observe(weight, grid(name, dtype))
    found, others = (
        by(which, lambda: nearest(weight, qparams, grid(name, dtype)))
        for which in ("triton", "torch")
    )
    for one, other in zip(found, others, strict=True):
        assert same_bits(one, other)


@pytest.mark.parametrize("name", ["int4 g32 asymmetric", "nvfp4", "fp8 block"])
def test_rounding_to_nearest_gives_the_same_weight(name: str) -> None:
    weight = hard_to_round(name, torch.bfloat16)
    qparams = observe(weight, grid(name))
    found = by("triton", lambda: rtn(weight, grid(name), qparams))
    assert same_bits(found.weight, by("compiled", lambda: rtn(weight, grid(name), qparams)).weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", FORMATS)
def test_ranges_are_the_same(name: str, dtype: torch.dtype) -> None:
    weight, _ = problem(rows=21, columns=96)
    weight = weight.to(dtype)
    weight[:, :32].clamp_(min=0.01)  # ranges that 0 is outside of
    weight[3, 40], weight[4, 40] = float("inf"), -float("inf")
    for found, other in zip(
        by("triton", lambda: bounds(weight, grid(name))),
        by("compiled", lambda: bounds(weight, grid(name))),
        strict=True,
    ):
        assert found.dtype == other.dtype and torch.equal(found, other)


def test_a_range_with_nan_in_it_is_nan_at_an_end() -> None:
    weight, _ = problem(rows=4, columns=96)
    weight[1, 5], weight[2, 70] = float("nan"), -float("nan")
    low, high = by("triton", lambda: bounds(weight, grid("int4 g32")))
    assert torch.nonzero(low.isnan() | high.isnan()).tolist() == [[1, 0], [2, 2]]


def test_ranges_of_a_ragged_block() -> None:
    weight, _ = problem(rows=45, columns=75)
    for found, other in zip(
        by("triton", lambda: bounds(weight, grid("fp8 block"))),
        by("torch", lambda: bounds(weight, grid("fp8 block"))),
        strict=True,
    ):
        assert torch.equal(found, other)
