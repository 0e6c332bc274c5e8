"""Weights done some rows at a time have the bytes that compressed-tensors gives the whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.lifecycle.forward import dequantize, quantize
from torch import Tensor

from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.output_error import relative_error
from stages.compress.solvers.rtn import rtn
from stages.formats import row_blocks as by_rows
from stages.formats.checksums import bit_sums
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams
from stages.formats.pack import pack, unpack
from tests.stages.formats.whole import stored_sums
from tests.stages.schemes.presets import QUANTIZED, group

ROWS, COLUMNS = 300, 512
DTYPES = (torch.bfloat16, torch.float32)


def integers(bits: int, **more: Any) -> QuantizationScheme:
    args = QuantizationArgs(num_bits=bits, symmetric=False, **more)
    return QuantizationScheme(targets=["Linear"], weights=args, format="pack-quantized")


SCHEMES = {name: to_compressed_tensors(group(name)) for name in QUANTIZED} | {
    "w3_asym": integers(3, strategy="group", group_size=64),
    "w5_asym": integers(5, strategy="channel"),
    "w8_blocks": QuantizationScheme(
        targets=["Linear"],
        weights=QuantizationArgs(strategy="block", block_structure=[24, 128]),
        format="int-quantized",
    ),
}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 32 rows, or of a block where those are higher."""
    monkeypatch.setattr(by_rows, "ELEMENTS", 40 * COLUMNS)


def weight_of(dtype: torch.dtype) -> Tensor:
    draw = torch.Generator().manual_seed(11)
    weight = torch.randn(ROWS, COLUMNS, generator=draw) * 10.0 ** torch.randint(
        -3, 2, (ROWS, 1), generator=draw
    )
    weight[5, :40], weight[6, :40] = 0.0, -0.0
    return weight.to(dtype)


def given(weight: Tensor, scheme: QuantizationScheme) -> dict[str, Tensor]:
    assert scheme.weights is not None
    found = minmax.observe(weight, grid_of(scheme.weights))
    parts = {
        "weight": weight,
        "weight_scale": found.scale,
        "weight_zero_point": found.zero_point,
        "weight_global_scale": found.global_scale,
    }
    return {name: value for name, value in parts.items() if value is not None}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCHEMES)
def test_packed_bytes_and_unpacked_weights_are_those_of_the_whole(
    name: str, dtype: torch.dtype
) -> None:
    scheme, parts = SCHEMES[name], given(weight_of(dtype), SCHEMES[name])
    theirs = BaseCompressor.get_value_from_registry(str(scheme.format))
    wanted = theirs.compress(dict(parts), scheme)
    assert scheme.weights is not None
    qparams = minmax.observe(parts["weight"], grid_of(scheme.weights))
    chosen = rtn(parts["weight"], grid_of(scheme.weights), qparams)
    assert chosen.codes is not None
    mine = pack(
        chosen.codes,
        scale=parts["weight_scale"],
        zero_point=parts.get("weight_zero_point"),
        global_scale=parts.get("weight_global_scale"),
        inputs=InputParams(),
        scheme=scheme,
    )
    assert mine.keys() == wanted.keys()
    for part, tensor in mine.items():
        assert tensor.dtype == wanted[part].dtype and tensor.shape == wanted[part].shape, part
        one, other = (t.reshape(-1).view(torch.uint8) for t in (tensor, wanted[part]))
        assert torch.equal(one, other), part
    whole = theirs.decompress(dict(mine), scheme)["weight"]
    found = unpack(mine, scheme)
    assert found.dtype == whole.dtype and torch.equal(found, whole)


@pytest.mark.parametrize("name", ["w4a16", "w4a16_asym", "fp8_block", "nvfp4a16", "mxfp8a16"])
@pytest.mark.parametrize("part", ["weight_scale", "weight_zero_point"])
def test_parameters_of_another_number_of_rows_are_refused(name: str, part: str) -> None:
    scheme, parts = SCHEMES[name], given(weight_of(torch.bfloat16), SCHEMES[name])
    stored = BaseCompressor.get_value_from_registry(str(scheme.format)).compress(parts, scheme)
    if part not in stored:
        return
    for other in (torch.cat([stored[part], stored[part]]), stored[part][:-1]):
        with pytest.raises(ValueError, match=f"{part} has"):
            unpack({**stored, part: other}, scheme)


@pytest.mark.parametrize("name", SCHEMES)
def test_sums_from_codes_are_those_of_what_is_unpacked(name: str) -> None:
    scheme, parts = SCHEMES[name], given(weight_of(torch.bfloat16), SCHEMES[name])
    theirs = BaseCompressor.get_value_from_registry(str(scheme.format))
    stored = theirs.compress(dict(parts), scheme)
    sums = stored_sums(stored, scheme, torch.bfloat16)
    if str(scheme.format) in ("mxfp8-quantized", "mxfp6-pack-quantized"):
        assert sums is None
        return
    wanted = bit_sums(theirs.decompress(dict(stored), scheme)["weight"])
    assert sums is not None
    assert torch.equal(sums["rows"], wanted["rows"])
    assert torch.equal(sums["columns"], wanted["columns"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCHEMES)
def test_rounding_is_that_of_the_whole(name: str, dtype: torch.dtype) -> None:
    scheme, weight = SCHEMES[name], weight_of(dtype)
    args = scheme.weights
    assert args is not None
    found = minmax.observe(weight, grid_of(args))
    zero = torch.zeros_like(found.scale) if found.zero_point is None else found.zero_point
    codes = quantize(
        x=weight, scale=found.scale, zero_point=zero, args=args, global_scale=found.global_scale
    )
    wanted = dequantize(
        codes.float(), found.scale.float(), zero.float(), args, global_scale=found.global_scale
    )
    assert torch.equal(rtn(weight, grid_of(args), found).weight, wanted)


def test_the_error_is_that_of_the_whole() -> None:
    weight = weight_of(torch.bfloat16)
    other = (weight.float() * 1.01).to(torch.bfloat16)
    exact = (weight.double() - other.double()).square().sum() / weight.double().square().sum()
    assert relative_error(weight, other) == pytest.approx(float(exact), rel=1e-5)
    assert relative_error(torch.zeros(ROWS, COLUMNS), torch.zeros(ROWS, COLUMNS)) == 0.0
