"""Codes and the numbers that they stand for, scales as exponents, and checksums of codes."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors.mx_utils import compress_mx_scale

from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.formats import code_checksum as module
from stages.formats.checksums import bit_sums
from stages.formats.code_checksum import code_checksum
from stages.formats.codes import code_dtype, decode, e8m0_of, encode, to_e4m3
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.schemes.quant_args import QArgs
from tests.stages.schemes.presets import QUANTIZED, group

FORMATS = {
    "int8": QArgs(num_bits=8, strategy="channel"),
    "int4": QArgs(num_bits=4, strategy="channel"),
    "e4m3": QArgs(num_bits=8, type="float", strategy="channel"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_code_is_that_of_its_value(name: str) -> None:
    args = FORMATS[name]
    every = torch.arange(256, dtype=torch.uint8).view(code_dtype(args))
    values = decode(every)
    known = values.isfinite()
    back = encode(values[known], args)
    assert torch.equal(back.view(torch.uint8), every[known].view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_beyond_the_largest_e4m3_becomes_that(dtype: torch.dtype) -> None:
    given = torch.tensor([448.0, 464.0, 465.0, 60000.0, float("inf"), -480.0, -0.0], dtype=dtype)
    wanted = [448.0, 448.0, 448.0, 448.0, 448.0, -448.0, 0.0]
    assert to_e4m3(given).float().tolist() == wanted
    assert torch.signbit(to_e4m3(given).float())[-1]


def test_exponents_are_those_of_compressed_tensors() -> None:
    every = 2.0 ** torch.arange(-127, 128).double()
    for dtype in (torch.float32, torch.bfloat16):
        theirs = compress_mx_scale(every.to(dtype), torch.uint8)
        assert torch.equal(e8m0_of(every.to(dtype)), theirs)
    assert e8m0_of(torch.tensor([1.5, 3.9, 0.75])).tolist() == [127, 128, 126]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", [*QUANTIZED, "blocks"])
def test_the_checksum_of_codes_is_that_of_their_weight(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = to_compressed_tensors(group("fp8_block" if name == "blocks" else name))
    assert scheme.weights is not None
    shape = (300, 260) if name == "blocks" else (33, 256)  # blocks at the edge are smaller
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    grid = grid_of(scheme.weights, dtype)
    found = rtn(weight, grid, minmax.observe(weight, grid))
    assert found.codes is not None
    wanted = bit_sums(found.weight.to(module.unpacked_dtype(scheme, dtype)))
    params = {"zero_point": found.zero_point, "global_scale": found.global_scale}
    sums = code_checksum(found.codes, scale=found.scale, **params, scheme=scheme, dtype=dtype)
    monkeypatch.setattr(module, "AT_ONCE", 5 * shape[1])
    rows, columns = shape
    height, width = module.spans(scheme.weights, rows, columns)
    scale = found.scale.float() / (1.0 if found.global_scale is None else found.global_scale)
    scale = scale.reshape(-(-rows // height), -1)
    zero = torch.zeros_like(scale) if found.zero_point is None else found.zero_point.float()
    unpacked = module.unpacked_dtype(scheme, dtype)
    plain = module._by_torch(
        found.codes, scale, zero.reshape(scale.shape), (height, width), unpacked
    )
    for side, values in wanted.items():
        assert torch.equal(sums[side], values) and torch.equal(plain[side], values)
