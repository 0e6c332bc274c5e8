"""The shipped schemes are compressed-tensors' presets, and survive packing and unpacking."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams

from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.formats.convert import to_compressed_tensors
from stages.formats.pack import InputParams, checksum, pack, unpack, unpacked_dtype
from stages.formats.sizes import linear_bytes
from stages.model.blueprint import LinearSpec
from tests.stages.formats.presets import NAMES, QUANTIZED, group, load

OURS = {"none", "w4a16_g64"}
FORMATS = {
    "w4a16": "pack-quantized",
    "w4a16_asym": "pack-quantized",
    "w8a16": "pack-quantized",
    "w8a8": "int-quantized",
    "fp8": "float-quantized",
    "fp8_dynamic": "float-quantized",
    "nvfp4": "nvfp4-pack-quantized",
    "nvfp4a16": "nvfp4-pack-quantized",
    "mxfp4": "mxfp4-pack-quantized",
}


@pytest.mark.parametrize("name", sorted(set(NAMES) - OURS))
def test_a_shipped_scheme_is_the_preset_of_its_name(name: str) -> None:
    ours = to_compressed_tensors(group(name)).model_dump(exclude={"format"})
    preset = preset_name_to_scheme(name, ["Linear"]).model_dump(exclude={"format"})
    assert ours == preset


@pytest.mark.parametrize(("name", "layout"), FORMATS.items())
def test_the_layout_is_the_one_compressed_tensors_infers(name: str, layout: str) -> None:
    assert to_compressed_tensors(group(name)).format == layout


def test_scheme_none_quantizes_nothing() -> None:
    assert not list(load("none").ordered())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", QUANTIZED)
def test_unpacking_gives_the_weight_that_was_packed(name: str, dtype: torch.dtype) -> None:
    scheme = to_compressed_tensors(group(name))
    assert scheme.weights is not None
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(40, 256, generator=generator) * 0.05).to(dtype)
    qparams = minmax.observe(weight, scheme.weights, dtype=dtype)
    chosen = rtn(weight.float(), scheme.weights, qparams)
    inputs = _inputs(name, dtype)
    tensors = pack(
        chosen.weight,
        scale=chosen.scale,
        zero_point=chosen.zero_point,
        global_scale=chosen.global_scale,
        inputs=inputs,
        scheme=scheme,
    )
    read = unpack(tensors, scheme)
    assert read.dtype == unpacked_dtype(scheme, dtype)
    assert torch.equal(read.float(), chosen.weight.to(read.dtype).float())
    sums = checksum(chosen.weight, scheme, dtype)
    assert torch.equal(sums["rows"], read.double().sum(dim=1))
    assert torch.equal(sums["columns"], read.double().sum(dim=0))


@pytest.mark.parametrize("name", QUANTIZED)
def test_sizes_from_shapes_are_those_of_the_tensors(name: str) -> None:
    scheme = to_compressed_tensors(group(name))
    assert scheme.weights is not None
    weight = torch.randn(44, 256, dtype=torch.bfloat16)
    chosen = rtn(weight, scheme.weights, minmax.observe(weight, scheme.weights))
    tensors = pack(
        chosen.weight,
        scale=chosen.scale,
        zero_point=chosen.zero_point,
        global_scale=chosen.global_scale,
        inputs=_inputs(name, torch.bfloat16),
        scheme=scheme,
    )
    spec = LinearSpec(name="x", prefix="x", in_features=256, out_features=44)
    assert linear_bytes(spec, group(name), "bfloat16") == sum(t.nbytes for t in tensors.values())


def _inputs(name: str, dtype: torch.dtype) -> InputParams:
    if name == "fp8":
        args = to_compressed_tensors(group(name)).input_activations
        low, high = torch.tensor(-3.0, dtype=dtype), torch.tensor(5.0, dtype=dtype)
        return InputParams(scale=calculate_qparams(low, high, args)[0])
    if name == "nvfp4":
        return InputParams(global_scale=torch.tensor([100.0]))
    return InputParams()
