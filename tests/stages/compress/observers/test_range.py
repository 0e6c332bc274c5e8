"""The ranges of scales against torch's minima and maxima, and min-max against the arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.observers.range import bounds, by_scale

DTYPES = [torch.bfloat16, torch.float16, torch.float32]
LAYOUTS: dict[str, dict[str, Any]] = {
    "tensor": {"strategy": "tensor"},
    "channel": {"strategy": "channel"},
    "groups of 3": {"strategy": "group", "group_size": 3},
    "groups of 16": {"strategy": "group", "group_size": 16},
    "groups of 48": {"strategy": "group", "group_size": 48},
    "ragged blocks": {"strategy": "block", "block_structure": [5, 10]},
    "blocks as wide as the weight": {"strategy": "block", "block_structure": [4, 96]},
}
SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1e-40, -1e-40, 6e-8, 60000.0]
PRESETS = ("W4A16", "W4A16_ASYM", "W8A8", "FP8", "FP8_BLOCK", "NVFP4A16", "MXFP4A16", "MXFP8A16")


def ends(weight: Tensor, args: QuantizationArgs) -> tuple[Tensor, Tensor]:
    """What `bounds` promises, in torch's words; NaN where a value under the scale is."""
    values = by_scale(weight, grid_of(args))
    return values.amin(dim=-1).clamp(max=0), values.amax(dim=-1).clamp(min=0)


def same(found: Tensor, wanted: Tensor) -> bool:
    """Equal values, and NaN where there is NaN."""
    return found.dtype == wanted.dtype and torch.equal(
        found.float().nan_to_num(12345.0, 1e39, -1e39),
        wanted.float().nan_to_num(12345.0, 1e39, -1e39),
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds_are_the_extremes_of_every_scale_and_zero(layout: str, dtype: torch.dtype) -> None:
    args = QuantizationArgs(num_bits=8, type="int", **LAYOUTS[layout])
    noise = torch.randn(23, 96, generator=torch.Generator().manual_seed(0))
    for weight in (noise, noise.abs(), -noise.abs(), noise * 0, noise * 1e4):
        whole = weight.to(dtype)
        for part in (whole, whole[3:, :48], whole.repeat(2, 2)[::2, ::2]):
            for found, wanted in zip(bounds(part, grid_of(args)), ends(part, args), strict=True):
                assert found.shape == wanted.shape and same(found, wanted)


@settings(max_examples=60, deadline=None)
@given(
    places=st.dictionaries(st.integers(0, 12 * 48 - 1), st.sampled_from(SPECIAL), max_size=9),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    sign=st.sampled_from([1.0, -1.0]),
)
def test_a_value_that_is_not_finite_shows_in_the_bounds_of_its_scale(
    places: dict[int, float], dtype: torch.dtype, layout: str, sign: float
) -> None:
    args = QuantizationArgs(num_bits=8, type="int", **LAYOUTS[layout])
    weight = torch.randn(12, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    for at, value in places.items():
        weight.view(-1)[at] = value * sign
    low, high = bounds(weight, grid_of(args))
    least, most = ends(weight, args)
    broken = least.isnan()
    assert torch.equal(low.isnan() | high.isnan(), broken)
    for found, wanted in ((low, least), (high, most)):
        assert same(found[~broken], wanted[~broken])


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("broken", [False, True])
def test_minmax_is_the_reference_arithmetic_to_the_bit(
    preset: str, dtype: torch.dtype, broken: bool
) -> None:
    args = preset_name_to_scheme(preset, ["Linear"]).weights
    assert args is not None
    weight = torch.randn(1100, 1024, generator=torch.Generator().manual_seed(2)).to(dtype)
    weight[::3] = weight[::3].abs()
    weight[5, :64] = 0.0
    if broken:
        weight[700, 256:512], weight[900, 3] = float("inf"), float("nan")
    values = by_scale(weight, grid_of(args))
    low, high = (end.bfloat16() for end in (values.amin(dim=-1), values.amax(dim=-1)))
    shared = None
    if args.strategy == "tensor_group":
        largest = weight.abs().amax().bfloat16().reshape(1)
        shared = generate_gparam(-largest, largest)
    scale, zero_point = calculate_qparams(low, high, args, global_scale=shared)
    found = minmax.observe(weight, grid_of(args))
    assert same(found.scale, scale)
    assert (found.zero_point is None) == args.symmetric
    if found.zero_point is not None:
        assert torch.equal(found.zero_point, zero_point)
    assert (found.global_scale is None) == (shared is None)
    if found.global_scale is not None and shared is not None:
        assert torch.equal(found.global_scale, shared)
