"""Observers that search find scales under which the weight errs least."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme
from torch import Tensor

from stages.compress.grid import QParams, grid_of
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.solvers.rtn import rtn
from tests.stages.compress.observers.peer_search import IMATRIX, MSE, WIDER, searched
from tests.stages.compress.solvers.reference import int4, problem

SEARCHES: dict[str, tuple[dict[str, Any], bool]] = {
    "mse": (MSE, False),
    "imatrix": (IMATRIX, True),
    "nvfp4_expanded_mse": (WIDER, False),
    "nvfp4_expanded_imatrix": ({**WIDER, "grid": 200}, True),
}
FORMATS = "W2A16 W4A16 W4A16_ASYM W8A8 FP8 FP8_DYNAMIC FP8_BLOCK NVFP4A16 MXFP4A16 MXFP8A16".split()


def args_of(preset: str) -> QuantizationArgs:
    args = preset_name_to_scheme(preset, ["Linear"]).weights
    assert args is not None
    return args


def errors(
    weight: Tensor, args: QuantizationArgs, found: QParams, norm: float, importance: Tensor
) -> float:
    """The objective in float64, of the weight as it will be read back."""
    apart = rtn(weight.float(), grid_of(args), found).weight.double() - weight.double()
    return float((apart.abs().pow(norm) * importance.double()).sum())


def case(seed: int, columns: int = 256) -> tuple[Tensor, Tensor]:
    weight, H = problem(rows=48, columns=columns, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    tails = torch.randn(weight.shape, generator=generator).pow(3) * 0.02
    return (weight + tails).bfloat16(), H.diagonal() / 600


@pytest.mark.parametrize("observer", SEARCHES)
@pytest.mark.parametrize("preset", FORMATS)
def test_no_search_errs_more_than_the_one_it_is_named_after(preset: str, observer: str) -> None:
    options, weighted = SEARCHES[observer]
    args, (weight, squares) = args_of(preset), case(seed=len(preset))
    if weighted and args.strategy in ("tensor", "block"):
        return  # theirs ignores the importance there
    importance = squares if weighted else None
    ours = OBSERVERS[observer](weight, grid_of(args), importance=importance)
    theirs = searched(weight, args, importance, **options, last=weighted)
    judged = squares if weighted else torch.ones_like(squares)
    norm = options["norm"]
    mine, other = (errors(weight, args, q, norm, judged) for q in (ours, theirs))
    assert mine <= other * (1 + 1e-5)


@pytest.mark.parametrize("observer", SEARCHES)
@pytest.mark.parametrize("args", [int4(32), int4(None, symmetric=False)], ids=["sym", "asym"])
def test_in_float32_and_with_patience_both_find_the_same_scales(
    args: QuantizationArgs, observer: str
) -> None:
    options, weighted = SEARCHES[observer]
    weight, squares = case(seed=5)
    weight = weight.float()
    importance = squares if weighted else None
    ours = OBSERVERS[observer](weight, grid_of(args, torch.float32), importance=importance)
    patient = {**options, "patience": 1000}
    theirs = searched(weight, args, importance, **patient, last=weighted)
    assert torch.equal(ours.scale, theirs.scale)
    if ours.zero_point is not None:
        assert torch.equal(ours.zero_point, theirs.zero_point)


@pytest.mark.parametrize("norm", [0.5, 2.4, 3.0, 7.0])
def test_the_compiled_power_is_one(norm: float) -> None:
    import numpy as np

    from stages.compress.observers.search_kernels import _power

    x = np.concatenate([10.0 ** np.linspace(-12, 4, 999), [1.0, 2.0, 0.75]]).astype(np.float32)
    found = np.array([_power(value, np.float32(norm)) for value in x])
    wanted = x.astype(np.float64) ** norm
    fits = (wanted > 1e-37) & (wanted < 1e37)
    np.testing.assert_allclose(found[fits], wanted[fits], rtol=2e-5)
    assert _power(np.float32(0.0), np.float32(norm)) <= 1e-19


@pytest.mark.parametrize("strategy", ["tensor", "channel"])
def test_a_search_over_few_long_scales_is_that_of_its_definition(strategy: str) -> None:
    args = QuantizationArgs(num_bits=4, strategy=strategy)
    weight, _ = case(seed=9, columns=1000)
    found = OBSERVERS["mse"](weight, grid_of(args))
    ones = torch.ones(1000)
    low, high = weight.float().amin(), weight.float().amax()
    tried = []
    for step in range(20):
        clipped = weight.clamp(low * (1 - step / 100), high * (1 - step / 100))
        tried.append(errors(weight, args, OBSERVERS["minmax"](clipped, grid_of(args)), 2.4, ones))
    if strategy == "tensor":
        assert errors(weight, args, found, 2.4, ones) == pytest.approx(min(tried), rel=1e-5)
    else:
        assert errors(weight, args, found, 2.4, ones) <= min(tried)


@pytest.mark.parametrize("observer", ["imatrix", "gram", "nvfp4_expanded_imatrix"])
def test_observers_of_inputs_refuse_to_go_without(observer: str) -> None:
    weight, _ = case(seed=1)
    with pytest.raises(ValueError, match="every input channel"):
        OBSERVERS[observer](weight, grid_of(int4(32)), importance=None)
