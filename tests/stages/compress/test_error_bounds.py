"""How far rounding to nearest may be from a weight, for every grid."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.compress.grid import column_scale, expand, grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn

FEW = settings(max_examples=20, deadline=None, database=None)
SLACK = 1 + 1e-5  # the quotient and the product are rounded to float32


@st.composite
def weights(draw: st.DrawFn) -> Tensor:
    """Normal weights with outliers and zeros, of very different sizes."""
    make = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    weight = torch.randn(draw(st.integers(1, 6)), 128, generator=make)
    weight *= 10.0 ** draw(st.integers(-4, 3))
    weight[torch.rand(weight.shape, generator=make) < draw(st.sampled_from([0.0, 0.3]))] = 0
    if draw(st.booleans()):
        weight[0, 0] *= 100
    return weight


def scaled(weight: Tensor, args: QuantizationArgs) -> tuple[Tensor, Tensor, Tensor]:
    """In units of the scale: the weight, what it was rounded to, and the zero points."""
    grid = grid_of(args, torch.float32)
    qparams = minmax.observe(weight, grid)
    done = rtn(weight, grid, qparams).weight
    scale, zero = expand(qparams, grid, weight.shape[0])
    columns = column_scale(grid, weight.shape[1]).clamp(max=scale.shape[1] - 1)
    step = scale[:, columns].double()
    return weight.double() / step, done.double() / step, zero[:, columns].double()


INTEGERS: dict[str, dict[str, Any]] = {
    "tensor": {"strategy": "tensor"},
    "channel": {"strategy": "channel"},
    "group": {"strategy": "group", "group_size": 32},
}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", INTEGERS)
@pytest.mark.parametrize("bits", range(2, 9))
@FEW
@given(weight=weights())
def test_integers_are_at_most_half_a_scale_away(
    bits: int, strategy: str, symmetric: bool, weight: Tensor
) -> None:
    args = QuantizationArgs(num_bits=bits, symmetric=symmetric, **INTEGERS[strategy])
    wanted, done, zero = scaled(weight, args)
    codes = done + zero
    half = 1 << (bits - 1)
    assert bool((codes - codes.round()).abs().max() < 1e-3)
    assert float(codes.min()) > -half - 1e-3 and float(codes.max()) < half - 1 + 1e-3
    inside = (wanted + zero >= -half) & (wanted + zero <= half - 1)
    assert bool(((wanted - done).abs()[inside] <= 0.5 * SLACK + 1e-4).all())
    # min and max decide the range: nothing is further outside than half a step either
    assert bool(((wanted - done).abs() <= 1.0 * SLACK + 1e-4).all())


FLOATS = {
    # preset: (half the relative distance of neighbours, half the smallest step, largest value)
    "FP8_DYNAMIC": (2.0**-4, 2.0**-10, 448.0),
    "MXFP8A16": (2.0**-4, 2.0**-10, 448.0),
    "MXFP4A16": (0.25, 0.25, 6.0),
    "NVFP4A16": (0.25, 0.25, 6.0),
}


@pytest.mark.parametrize("preset", FLOATS)
@FEW
@given(weight=weights())
def test_floats_are_within_their_relative_precision(preset: str, weight: Tensor) -> None:
    relative, smallest, largest = FLOATS[preset]
    args = preset_name_to_scheme(preset, ["Linear"]).weights
    assert args is not None
    wanted, done, _ = scaled(weight, args)
    assert float(done.abs().max()) <= largest * SLACK
    inside = wanted.abs() <= largest
    bound = (wanted.abs() * relative).clamp(min=smallest) * SLACK
    assert bool(((wanted - done).abs() <= bound)[inside].all())
    assert bool((done[~inside].abs() >= largest / SLACK).all())
