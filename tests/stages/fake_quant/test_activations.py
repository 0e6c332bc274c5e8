"""Inputs are fake-quantized row by row, with any number of dimensions before the width."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme
from torch import nn

from stages.fake_quant.activations import quantize_input
from stages.formats.input_params import InputParams, InputRule

LINEAR = nn.Linear(64, 8)
SHAPES = [(6, 64), (1, 6, 64), (2, 3, 64), (2, 1, 3, 64)]


def inputs() -> torch.Tensor:
    """Six rows whose sizes differ by factors of ten."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 64, generator=generator) * 10.0 ** torch.arange(-3, 3)[:, None]


@pytest.mark.parametrize("preset", ["W8A8", "W4A8", "FP8_DYNAMIC", "NVFP4", "MXFP4"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_shape_before_the_width_does_not_count(preset: str, shape: tuple[int, ...]) -> None:
    args = preset_name_to_scheme(preset, ["Linear"]).input_activations
    assert isinstance(args, QuantizationArgs)
    scale = torch.tensor([2688.0 / float(inputs().abs().max())]) if preset == "NVFP4" else None
    rule = InputRule(args=args, params=InputParams(global_scale=scale))
    alone = torch.cat([quantize_input(row[None, None], rule, LINEAR)[0] for row in inputs()])
    assert torch.equal(quantize_input(inputs().reshape(shape), rule, LINEAR), alone.reshape(shape))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_row_of_an_int8_input_is_near_by_its_own_scale(shape: tuple[int, ...]) -> None:
    args = preset_name_to_scheme("W8A8", ["Linear"]).input_activations
    assert isinstance(args, QuantizationArgs)
    rule = InputRule(args=args, params=InputParams())
    found = quantize_input(inputs().reshape(shape), rule, LINEAR).reshape(6, 64).double()
    step = inputs().double().abs().amax(dim=1, keepdim=True) / 127
    assert bool(((found - inputs().double()).abs() <= 0.51 * step).all())
