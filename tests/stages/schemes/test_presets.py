"""The shipped schemes are compressed-tensors' presets, and survive packing and unpacking."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES
from compressed_tensors.quantization.utils import calculate_qparams

from pipeline.errors import UserError
from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.formats.checksums import bit_sums, unpacked_dtype
from stages.formats.code_checksum import code_checksum
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams
from stages.formats.pack import pack, unpack
from stages.model.blueprint import LinearSpec
from stages.schemes.sizes import linear_bytes
from tests.stages.schemes.presets import PACKS_SIX, QUANTIZED, SHIPPED, SIX_BITS, group, load

OURS = {"none", "w4a16_g64", "mixed"}
SINCE_020 = (*SIX_BITS, "mxfp4xfp8")


@pytest.mark.parametrize("name", sorted(PRESET_SCHEMES))
def test_every_preset_is_shipped_with_its_own_numbers(name: str) -> None:
    found = dict(load(name.lower()).ordered())
    preset = preset_name_to_scheme(name, ["Linear"])
    if preset.weights is None:
        assert not found
        return
    ours = to_compressed_tensors(found["scheme"])
    for part in ("weights", "input_activations", "output_activations", "targets"):
        assert getattr(ours, part) == getattr(preset, part), part


def test_there_are_thirty_presets_or_more_and_nothing_else_is_shipped_as_one() -> None:
    assert len(PRESET_SCHEMES) == (33 if PACKS_SIX else 30)
    known = {name.lower() for name in PRESET_SCHEMES} | OURS
    assert known | set(SINCE_020) == SHIPPED
    assert PACKS_SIX == (known == SHIPPED)


@pytest.mark.skipif(PACKS_SIX, reason="compressed-tensors from 0.20 on packs floats of six bits")
@pytest.mark.parametrize("name", SIX_BITS)
def test_floats_of_six_bits_are_refused_by_name_where_nothing_packs_them(name: str) -> None:
    with pytest.raises(UserError, match=r"MXFP6.*compressed-tensors 0\.19"):
        load(name)


def test_mxfp4_with_fp8_inputs_has_the_numbers_of_its_preset() -> None:
    found = group("mxfp4xfp8")
    assert found.weights == group("mxfp4").weights and found.input_activations is not None
    inputs = found.input_activations
    assert (inputs.type, inputs.num_bits, inputs.group_size) == ("float", 8, 128)
    assert inputs.dynamic is True and inputs.scale_dtype is None


def test_scheme_none_quantizes_nothing() -> None:
    assert not list(load("none").ordered())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", QUANTIZED)
def test_unpacking_gives_the_weight_that_was_packed(name: str, dtype: torch.dtype) -> None:
    scheme = to_compressed_tensors(group(name))
    assert scheme.weights is not None
    generator = torch.Generator().manual_seed(1)
    weight = (torch.randn(40, 256, generator=generator) * 0.05).to(dtype)
    qparams = minmax.observe(weight, grid_of(scheme.weights, dtype))
    chosen = rtn(weight.float(), grid_of(scheme.weights, dtype), qparams)
    inputs = _inputs(name, dtype)
    assert chosen.codes is not None
    tensors = pack(
        chosen.codes,
        scale=chosen.scale,
        zero_point=chosen.zero_point,
        global_scale=chosen.global_scale,
        inputs=inputs,
        scheme=scheme,
    )
    read = unpack(tensors, scheme)
    assert read.dtype == unpacked_dtype(scheme, dtype)
    assert torch.equal(read.float(), chosen.weight.to(read.dtype).float())
    sums = code_checksum(
        chosen.codes,
        scale=chosen.scale,
        zero_point=chosen.zero_point,
        global_scale=chosen.global_scale,
        scheme=scheme,
        dtype=dtype,
    )
    found = bit_sums(read)
    assert torch.equal(sums["rows"], found["rows"])
    assert torch.equal(sums["columns"], found["columns"])


@pytest.mark.parametrize("name", QUANTIZED)
def test_sizes_from_shapes_are_those_of_the_tensors(name: str) -> None:
    scheme = to_compressed_tensors(group(name))
    assert scheme.weights is not None
    weight = torch.randn(44, 256, dtype=torch.bfloat16)
    chosen = rtn(weight, grid_of(scheme.weights), minmax.observe(weight, grid_of(scheme.weights)))
    assert chosen.codes is not None
    tensors = pack(
        chosen.codes,
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
