"""Quantized checkpoints read as what an independent writer meant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.entrypoints.convert.converters import (
    AutoAWQConverter,
    FP8BlockDequantizer,
    ModelOptNvfp4Converter,
)
from compressed_tensors.quantization import QuantizationScheme, preset_name_to_scheme
from safetensors.torch import load_file, save_file

from stages.load.model_folder import look_into
from stages.weights.source import TensorSpec
from tests.stages.quantized import packers
from tests.stages.quantized.checkpoints import KINDS, quantize, reading

Q = "model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_every_tensor_is_what_was_meant(tmp_path: Path, tiny_llama: Path, name: str) -> None:
    meant = quantize(tiny_llama, tmp_path / "q", KINDS[name])
    source = reading(tmp_path / "q")
    dtype: torch.dtype = getattr(torch, KINDS[name].dtype)
    assert source.specs().keys() == meant.keys()
    read = source.read(meant)
    for tensor, spec in source.specs().items():
        assert torch.equal(read[tensor], meant[tensor].to(dtype)), tensor
        assert spec.shape == tuple(read[tensor].shape)
        assert spec == TensorSpec(name=tensor, shape=spec.shape, dtype=spec.dtype)
    assert list(source.read([f"{Q}.weight", "model.norm.weight"])) == [
        f"{Q}.weight",
        "model.norm.weight",
    ]


def test_one_module_is_read_for_one_weight(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["gptq"])
    source = reading(tmp_path / "q")
    asked: list[str] = []
    healthy = source.source.read

    def counting(names: Iterable[str], *, device: str = "cpu") -> dict[str, torch.Tensor]:
        asked.extend(names)
        return healthy(names, device=device)

    monkeypatch.setattr(source.source, "read", counting)
    source.read([f"{Q}.weight"])
    assert {name.rpartition(".")[0] for name in asked} == {Q}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_gptq_layers_of_any_shape(tmp_path: Path, bits: int, symmetric: bool, version: int) -> None:
    weight = torch.randn(96, 64, generator=torch.Generator().manual_seed(bits))
    parts, meant = packers.gptq(weight, bits, 32, symmetric=symmetric, version=version)
    folder = tmp_path / "q"
    folder.mkdir()
    save_file({f"a.{k}": v for k, v in parts.items()}, folder / "model.safetensors")
    said = {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": symmetric}
    said["checkpoint_format"] = "gptq" if version == 1 else "gptq_v2"
    config = {"dtype": "float32", "quantization_config": said}
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(reading(folder).read(["a.weight"])["a.weight"], meant)


def test_awq_reads_as_compressed_tensors_converts(tmp_path: Path, tiny_llama: Path) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["awq"])
    tensors = load_file(tmp_path / "q" / "model.safetensors")
    converter = AutoAWQConverter(group_size=32)
    converted = converter.process(tensors)
    scheme = preset_name_to_scheme("W4A16_ASYM", ["Linear"])
    scheme.weights.group_size = 32
    layout: type[BaseCompressor] = BaseCompressor.get_value_from_registry("pack-quantized")
    parts = {k.removeprefix(f"{Q}."): v for k, v in converted.items() if k.startswith(f"{Q}.")}
    theirs = layout.decompress(parts, scheme)["weight"]
    assert torch.equal(reading(tmp_path / "q").read([f"{Q}.weight"])[f"{Q}.weight"], theirs)


@pytest.mark.parametrize("name", ["fp8_block", "fp8_block_128"])
def test_fp8_blocks_read_as_compressed_tensors_dequantizes(
    tmp_path: Path, tiny_llama: Path, name: str
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS[name])
    block = KINDS[name].config["weight_block_size"]
    dequantizer = FP8BlockDequantizer(targets=["re:.*layers.*proj"], weight_block_size=block)
    theirs = dequantizer.process(load_file(tmp_path / "q" / "model.safetensors"))
    ours = reading(tmp_path / "q").read(theirs)
    assert all(torch.equal(ours[tensor], theirs[tensor]) for tensor in theirs)


def test_nvfp4_reads_as_compressed_tensors_converts(tmp_path: Path, tiny_llama: Path) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["modelopt_nvfp4"])
    converter = ModelOptNvfp4Converter(targets=["re:.*layers.*proj"])
    converted = converter.process(load_file(tmp_path / "q" / "model.safetensors"))
    scheme: QuantizationScheme = preset_name_to_scheme("NVFP4", ["Linear"])
    layout: type[BaseCompressor] = BaseCompressor.get_value_from_registry("nvfp4-pack-quantized")
    parts = {k.removeprefix(f"{Q}."): v for k, v in converted.items() if k.startswith(f"{Q}.")}
    theirs = layout.decompress(parts, scheme)["weight"].float()
    source = reading(tmp_path / "q")
    ours = source.read([f"{Q}.weight"])[f"{Q}.weight"].float()
    # theirs rounds the scale to bfloat16 before it multiplies
    assert bool(((ours - theirs).abs() <= 2.0**-7 * theirs.abs()).all())
    assert torch.equal(source.inputs(Q).global_scale, parts["input_global_scale"].reshape(1))


def test_scales_that_are_left_behind_are_told(tmp_path: Path, tiny_llama: Path) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["modelopt_fp8"])
    assert look_into(tmp_path / "q", code=False).warnings == ()
    file = tmp_path / "q" / "model.safetensors"
    scales = {f"model.layers.0.self_attn.{k}_proj.{k}_scale": torch.ones(1) for k in "kv"}
    save_file(load_file(file) | scales, file)
    (warning,) = look_into(tmp_path / "q", code=False).warnings
    assert "model.layers.0.self_attn.k_proj.k_scale and 1 more" in warning
    assert "kv_cache=fp8" in warning
