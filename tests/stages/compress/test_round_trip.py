"""Every preset: what a solver chose is exactly what compressed-tensors stores and reads back."""

from __future__ import annotations

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization.quant_scheme import preset_name_to_scheme

from stages.compress.grid import Quantized, grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.rtn import rtn
from tests.stages.compress.solvers.reference import PRESETS, problem, through_checkpoint


def _check(quantized: Quantized, preset: str) -> None:
    scheme = preset_name_to_scheme(preset, ["Linear"])
    assert scheme.weights is not None
    rows, columns = quantized.weight.shape
    assert quantized.scale.shape == grid_of(scheme.weights).scale_shape(rows, columns)
    assert torch.isfinite(quantized.scale.float()).all()
    assert (quantized.scale.float() > 0).all()
    assert (quantized.zero_point is None) == scheme.weights.symmetric
    stored, back = through_checkpoint(quantized, scheme)
    assert torch.equal(back, quantized.weight.to(back.dtype))
    # the codes themselves, in full precision: a weight in bfloat16 could hide a neighbour
    again, second = through_checkpoint(
        Quantized(
            weight=back.float(),
            scale=quantized.scale,
            zero_point=quantized.zero_point,
            global_scale=quantized.global_scale,
        ),
        scheme,
    )
    assert torch.equal(back, second)
    assert quantized.codes is not None
    if quantized.codes.dtype == torch.uint8 and bool((quantized.codes == 8).any()):
        return  # FP4 has a code for -0, which a weight does not tell
    name = "weight_packed" if "weight_packed" in stored else "weight"
    assert torch.equal(stored[name].view(torch.uint8), again[name].view(torch.uint8))


@pytest.mark.parametrize("preset", PRESETS)
def test_rtn_survives_the_checkpoint(preset: str) -> None:
    weight, _ = problem(rows=40, columns=256)
    args = preset_name_to_scheme(preset, ["Linear"]).weights
    assert args is not None
    _check(rtn(weight, grid_of(args), minmax.observe(weight, grid_of(args))), preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_gptq_survives_the_checkpoint(preset: str) -> None:
    weight, H = problem(rows=40, columns=256)
    args = preset_name_to_scheme(preset, ["Linear"]).weights
    assert args is not None
    _check(gptq(weight, H, grid_of(args)), preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_rtn_stores_the_codes_of_compressing_the_plain_weight(preset: str) -> None:
    weight, _ = problem(rows=40, columns=256, seed=1)
    scheme = preset_name_to_scheme(preset, ["Linear"])
    assert scheme.weights is not None
    quantized = rtn(
        weight, grid_of(scheme.weights), minmax.observe(weight, grid_of(scheme.weights))
    )
    plain = {
        "weight": weight,
        "weight_scale": quantized.scale,
        "weight_zero_point": quantized.zero_point,
        "weight_global_scale": quantized.global_scale,
    }
    ours, weight_of_ours = through_checkpoint(quantized, scheme)
    name = infer_module_format(torch.nn.Linear, scheme).value
    compressor = BaseCompressor.get_value_from_registry(name)
    given = {part: tensor for part, tensor in plain.items() if tensor is not None}
    reference = compressor.compress(given, scheme)
    weight_of_reference = compressor.decompress(reference, scheme)["weight"]
    assert torch.equal(weight_of_ours, weight_of_reference)
    assert ours.keys() == reference.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor.view(torch.uint8), reference[name].view(torch.uint8)), name


def test_weights_with_empty_groups_stay_finite() -> None:
    weight, H = problem(rows=8, columns=256)
    weight[:, :128] = 0
    for preset in ("W4A16", "W4A16_ASYM", "FP8_BLOCK", "NVFP4", "MXFP4"):
        args = preset_name_to_scheme(preset, ["Linear"]).weights
        assert args is not None
        quantized = gptq(weight, H, grid_of(args))
        assert torch.isfinite(quantized.weight).all(), preset
        _check(quantized, preset)
