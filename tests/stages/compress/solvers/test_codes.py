"""Solvers choose codes; those of a plugin that gives a weight alone are found once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stages.compress.grid import QParams, grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.rtn import dequantize, rtn, with_codes
from stages.formats.codes import decode
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams
from stages.formats.pack import pack, unpack
from tests.stages.compress.solvers.reference import problem
from tests.stages.schemes.presets import QUANTIZED, group


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_weight_without_codes_gets_those_that_it_was_made_of(name: str) -> None:
    weight, H = problem(rows=40, columns=256)
    args = group(name).weights
    assert args is not None
    grid = grid_of(args)
    for found in (rtn(weight, grid, minmax.observe(weight, grid)), gptq(weight, H, grid)):
        assert found.codes is not None and with_codes(found, grid) is found
        again = with_codes(replace(found, codes=None), grid)
        assert again.codes is not None and again.codes.dtype == found.codes.dtype
        assert torch.equal(decode(again.codes), decode(found.codes))
        qparams = QParams(
            scale=found.scale, zero_point=found.zero_point, global_scale=found.global_scale
        )
        assert torch.equal(dequantize(decode(found.codes), qparams, grid), found.weight)


def test_what_says_more_than_the_weight_decides_its_codes() -> None:
    weight, _ = problem(rows=40, columns=256)
    args = group("nvfp4").weights
    assert args is not None
    grid = grid_of(args)
    found = rtn(weight, grid, minmax.observe(weight, grid))
    assert found.codes is not None and bool((found.codes == 8).any())
    again = with_codes(replace(found, codes=None, original=weight), grid)
    assert again.codes is not None and torch.equal(again.codes, found.codes)


def test_a_weight_off_its_grid_and_codes_of_another_kind_are_refused() -> None:
    weight, _ = problem(rows=40, columns=256)
    args = group("w4a16").weights
    assert args is not None
    grid = grid_of(args)
    found = rtn(weight, grid, minmax.observe(weight, grid))
    with pytest.raises(NumericalError, match="no codes under its scales stand for"):
        with_codes(replace(found, codes=None, weight=found.weight + 1e-3), grid)
    assert found.codes is not None
    with pytest.raises(ValueError, match="int16"):
        with_codes(replace(found, codes=found.codes.short()), grid)
    with pytest.raises(ValueError, match=r"\[40, 255\], not torch.int8 \[40, 256\]"):
        with_codes(replace(found, codes=found.codes[:, 1:]), grid)


def test_blocks_at_the_edge_mean_what_is_read_back() -> None:
    weight = torch.randn(300, 384 - 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.cat([weight, weight[:, :3] * 50], dim=1)[:, :300]  # 3 blocks, and 300 % 3 == 0
    scheme = to_compressed_tensors(group("fp8_block"))
    assert scheme.weights is not None
    grid = grid_of(scheme.weights)
    found = rtn(weight, grid, minmax.observe(weight, grid))
    assert found.codes is not None
    params = {"zero_point": None, "global_scale": None, "inputs": InputParams(), "scheme": scheme}
    back = unpack(pack(found.codes, scale=found.scale, **params), scheme)
    assert torch.equal(back, found.weight.bfloat16())


def test_scales_below_the_normal_numbers_of_float16_are_stored_as_codes_were_chosen() -> None:
    weight, H = problem(rows=40, columns=256)
    weight = (weight.float() * 10.0 ** torch.arange(-3, 1).repeat(10)[:, None]).half()
    scheme = to_compressed_tensors(group("w8a8"))
    assert scheme.weights is not None
    found = gptq(weight, H, grid_of(scheme.weights, torch.float16))
    assert found.codes is not None and bool((found.scale < 2.0**-14).any())
    params = {"zero_point": None, "global_scale": None, "inputs": InputParams(), "scheme": scheme}
    back = unpack(pack(found.codes, scale=found.scale, **params), scheme)
    assert torch.equal(back, found.weight.half())
