"""Conversion without loss: the result means, in float32, what the source's packer meant."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from pipeline.errors import StageFailed, UserError
from stages.compress.grid import grid_of
from stages.compress.modifiers.keep_source import kept, reciprocal
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.input_params import InputParams
from stages.formats.pack import pack
from stages.schemes.scheme import SchemeGroup
from tests.jobs import Job, built
from tests.loading import loaded_as
from tests.stages.quantized.checkpoints import KINDS, edit, gptq, quantize, reading
from tests.stages.schemes.presets import load
from tests.test_data_free import disk

Q = "model.layers.1.self_attn.q_proj"
SMALL = "scheme.weights.group_size=32"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("w4a16", {"group_size": 32}),
    "gptq to asym": ("w4a16_asym", {"group_size": 32}),
    "gptq to finer groups": ("w4a16", {"group_size": 16}),
    "gptq_asym": ("w4a16_asym", {"group_size": 32}),
    "gptq_v2_asym": ("w4a16_asym", {"group_size": 32}),
    "gptq_2": ("w2a16", {"group_size": 32, "symmetric": False}),
    "gptq_3": ("w3a16", {"group_size": 32}),
    "gptq_8": ("w8a16", {"group_size": 32}),
    "awq": ("w4a16_asym", {"group_size": 32}),
    "fp8_block_128": ("fp8_block", {}),
    "fp8_block": ("fp8_block", {"block_structure": [48, 80]}),
    "fp8_tensor": ("fp8_dynamic", {}),
    "modelopt_fp8": ("fp8_dynamic", {}),
}


def keep(tmp_path: Path, text: Path, scheme: str, *more: str) -> dict[str, Any]:
    job = Job(folder=tmp_path, model=tmp_path / "q", text=text)
    return job.run("run", "modifier=keep", f"scheme={scheme}", *more)


def meanings(folder: Path) -> dict[str, Tensor]:
    """The float32 weights that a saved checkpoint stands for, by compressed-tensors."""
    said = json.loads((folder / "config.json").read_text())["quantization_config"]
    config = QuantizationConfig.model_validate(said)
    (scheme,) = config.config_groups.values()
    assert isinstance(scheme, QuantizationScheme)
    stored: dict[str, Tensor] = {}
    for path in folder.glob("*.safetensors"):
        stored |= load_file(path)
    prefixes = [name.removesuffix(".weight_scale") for name in stored if "weight_scale" in name]
    return {prefix: meaning(prefix, stored, scheme) for prefix in prefixes}


def meaning(prefix: str, stored: dict[str, Tensor], scheme: QuantizationScheme) -> Tensor:
    parts = {n.removeprefix(f"{prefix}."): t for n, t in stored.items() if n.startswith(prefix)}
    if scheme.format == "nvfp4-pack-quantized":
        rows, half = parts["weight_packed"].shape
        codes = unpack_fp4_from_uint8(parts["weight_packed"], rows, 2 * half, dtype=torch.float32)
        scale = parts["weight_scale"].float() / parts["weight_global_scale"]
        return codes * scale.repeat_interleave(16, dim=1)
    parts["weight_scale"] = parts["weight_scale"].float()
    layout: type[BaseCompressor] = BaseCompressor.get_value_from_registry(str(scheme.format))
    return layout.decompress(parts, scheme)["weight"]


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_grid_is_kept_to_the_bit(tmp_path: Path, tiny_llama: Path, case: str) -> None:
    kind = KINDS[case.split(" ")[0]]
    meant = quantize(tiny_llama, tmp_path / "q", kind)
    stored = reading(tmp_path / "q").stored(Q)
    name, changes = CASES[case]
    group = load(name)
    assert group.weights is not None
    weights = replace(group.weights, **changes)
    scheme = to_compressed_tensors(SchemeGroup(weights=weights, format=group.format))
    grid = grid_of(weights, getattr(torch, kind.dtype))
    found = kept(stored, grid, round_scales=False)
    assert found.codes is not None
    parts = pack(
        found.codes,
        scale=found.scale,
        zero_point=found.zero_point,
        global_scale=None,
        inputs=InputParams(),
        scheme=scheme,
    )
    own = {f"{Q}.{part}": tensor for part, tensor in parts.items()}
    assert torch.equal(meaning(Q, own, scheme), meant[f"{Q}.weight"])


RUNS = {
    "gptq": ("w4a16", SMALL),
    "awq": ("w4a16_asym", SMALL),
    "fp8_block_128": ("fp8_block",),
}


@pytest.mark.parametrize("kind", sorted(RUNS))
def test_a_whole_checkpoint_is_converted_without_loss_and_without_data(
    tmp_path: Path, tiny_llama: Path, some_text: Path, kind: str
) -> None:
    meant = quantize(tiny_llama, tmp_path / "q", KINDS[kind])
    scheme, *more = RUNS[kind]
    result = keep(tmp_path, some_text, scheme, *more)
    assert result["verify"]["ok"] is True
    assert not {name for name in built(result) if name.startswith(("calibrate", "tokens"))}
    found = meanings(tmp_path / "run" / "checkpoint")
    assert len(found) == len(result["layers"]) == 14
    for prefix, weight in found.items():
        assert torch.equal(weight, meant[f"{prefix}.weight"]), prefix
    for row in result["layers"]:
        assert (row["solver"], row["relative_error"]) == ("keep", 0.0)


@pytest.mark.parametrize("scheme", ["nvfp4"])
def test_nvfp4_keeps_codes_and_scales_and_turns_factors_into_divisors(
    tmp_path: Path, tiny_llama: Path, some_text: Path, scheme: str
) -> None:
    meant = quantize(tiny_llama, tmp_path / "q", KINDS["modelopt_nvfp4"])
    result = keep(tmp_path, some_text, scheme)
    assert result["verify"]["ok"] is True
    source = load_file(tmp_path / "q" / "model.safetensors")
    saved: dict[str, Tensor] = {}
    for path in (tmp_path / "run" / "checkpoint").glob("*.safetensors"):
        saved |= load_file(path)
    assert torch.equal(saved[f"{Q}.weight_packed"], source[f"{Q}.weight"])
    scales = saved[f"{Q}.weight_scale"], source[f"{Q}.weight_scale"]
    assert torch.equal(*(scale.view(torch.uint8) for scale in scales))
    factor = float(source[f"{Q}.weight_scale_2"])
    assert float(1 / saved[f"{Q}.weight_global_scale"]) == pytest.approx(factor, rel=2**-23)
    inputs = saved.get(f"{Q}.input_global_scale")
    assert (inputs is not None) == (scheme == "nvfp4")
    assert inputs is None or float(1 / inputs) == pytest.approx(0.003, rel=2**-22)
    for prefix, weight in meanings(tmp_path / "run" / "checkpoint").items():
        wanted = meant[f"{prefix}.weight"]
        assert bool(((weight - wanted).abs() <= 2.0**-22 * wanted.abs()).all())


def test_a_reciprocal_is_turned_back_where_float32_can() -> None:
    factors = torch.rand(2000, generator=torch.Generator().manual_seed(0)) + 1
    exact = 0
    for factor in factors.split(1):
        found = reciprocal(factor)
        exact += bool(1 / found == factor)
        assert abs(float(found.double() * factor.double()) - 1) <= 2.0**-23
        if float(factor) < 1.414:
            assert bool(1 / found == factor)
    assert exact > 1500


def test_scales_stay_float32_where_engines_hold_them_so(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["fp8_block_128"])
    keep(tmp_path, some_text, "fp8_block")
    saved = tmp_path / "run" / "checkpoint"
    tensors = load_file(next(p for p in saved.glob("*.safetensors") if Q in str(load_file(p))))
    assert tensors[f"{Q}.weight_scale"].dtype == torch.float32
    _, loading = AutoModelForCausalLM.from_pretrained(
        saved, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]


WRITTEN = {
    "w4a16_asym": ("w4a16_asym", "scheme.format=int-quantized"),
    "w8a8": ("w8a16", "scheme.weights.strategy=channel", "scheme.weights.group_size=null"),
    "nvfp4a16": ("nvfp4a16",),
    "mxfp4a16": ("mxfp4a16",),
    "fp8": ("fp8",),
}


@pytest.mark.parametrize("scheme", sorted(WRITTEN))
def test_what_was_written_here_is_laid_out_anew(
    tmp_path: Path, tiny_llama: Path, some_text: Path, scheme: str
) -> None:
    first = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    first.run("first", "modifier=rtn", f"scheme={scheme}")
    (tmp_path / "q").symlink_to(tmp_path / "first" / "checkpoint")
    other, *more = WRITTEN[scheme]
    result = keep(tmp_path, some_text, other, *more)
    assert result["verify"]["ok"] is True
    assert {row["relative_error"] for row in result["layers"]} == {0.0}
    if not scheme.startswith("mx"):
        before = meanings(tmp_path / "first" / "checkpoint")
        after = meanings(tmp_path / "run" / "checkpoint")
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


REFUSED = {
    "bits": ("gptq", "w8a16", SMALL, "the source has int4 codes, not int8"),
    "zeros": ("awq", "w4a16", SMALL, "zero points, and the scheme is symmetric"),
    "groups": ("gptq", "w4a16", "scheme.weights.group_size=64", "each group of 32, not for each"),
    "block": ("fp8_block", "fp8_block", "save.name=null", "block of 48 x 80, not for each block"),
    "type": ("modelopt_nvfp4", "mxfp4", "save.name=null", "float8_e4m3fn scales, not uint8 ones"),
    "order": ("gptq_act", "w4a16", SMALL, r"q_proj: the columns .* \(desc_act\)"),
    "inputs": ("fp8_tensor", "fp8", "save.name=null", "source has no scale for them"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_another_grid_is_refused_with_the_reason(
    tmp_path: Path, tiny_llama: Path, some_text: Path, case: str
) -> None:
    kind, scheme, override, message = REFUSED[case]
    quantize(tiny_llama, tmp_path / "q", KINDS[kind])
    with pytest.raises(UserError, match=message) as caught:
        keep(tmp_path, some_text, scheme, override)
    assert "modifier=rtn" in str(caught.value)


def test_a_dense_source_has_nothing_to_keep(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    for go in (lambda: job.run("run", "modifier=keep"), lambda: job.plan("modifier=keep")):
        with pytest.raises(UserError, match="this source is dense"):
            go()


def test_float16_scales_stay_so_in_a_bfloat16_model_and_who_casts_them_is_told(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    meant = quantize(tiny_llama, tmp_path / "q", gptq())
    config = tmp_path / "q" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"bfloat16"'))
    result = keep(tmp_path, some_text, "w4a16", SMALL)
    assert result["verify"]["ok"] is True
    told = next(str(t) for t in result["warnings"] if "float16 scales are kept" in str(t))
    assert "transformers and vLLM cast them" in told and "0.4 % in bfloat16" in told
    found = meanings(tmp_path / "run" / "checkpoint")
    assert all(torch.equal(found[name], meant[f"{name}.weight"]) for name in found)
    loaded = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(
            tmp_path / "run" / "checkpoint",
            dtype=dtype,
            quantization_config=CompressedTensorsConfig(run_compressed=False),
        )
        loaded[dtype] = model.get_submodule(Q).weight.detach()
    assert loaded_as(loaded[torch.float32], meant[f"{Q}.weight"])
    assert not torch.equal(loaded[torch.bfloat16], meant[f"{Q}.weight"].bfloat16())


def test_scales_that_would_be_rounded_are_an_error_unless_asked_for(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", gptq())
    config = tmp_path / "q" / "config.json"
    config.write_text(config.read_text().replace('"float16"', '"bfloat16"'))

    def widen(tensors: dict[str, Tensor]) -> None:
        scales = {name: t.float() for name, t in tensors.items() if name.endswith("scales")}
        tensors.update(scales)

    edit(tmp_path / "q", widen)
    with pytest.raises(StageFailed, match="its scales are no bfloat16 numbers"):
        keep(tmp_path, some_text, "w4a16", SMALL)
    result = keep(tmp_path, some_text, "w4a16", SMALL, "modifier.keep.round_scales=true")
    assert all(0 < row["relative_error"] < 2.0**-16 for row in result["layers"])


def test_what_does_not_fit_is_rounded_if_asked_for(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", gptq())
    source = load_file(tmp_path / "q" / "model.safetensors")
    dense = {f"{Q}.weight": torch.randn(128, 128, dtype=torch.float16)}

    def unquantized(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in source if name.startswith(f"{Q}.")]:
            del tensors[name]
        tensors.update(dense)

    edit(tmp_path / "q", unquantized)
    result = keep(tmp_path, some_text, "w4a16", SMALL, "modifier.keep.on_failure=fallback")
    solvers = {row["name"]: row["solver"] for row in result["layers"]}
    assert solvers.pop(Q) == "rtn" and set(solvers.values()) == {"keep"}
    assert [entry["module"] for entry in result["fallbacks"]] == [Q]
    other = ["scheme.ignore=[lm_head,re:.*layers.1.self_attn.q_proj]"]
    assert keep(tmp_path, some_text, "w4a16", SMALL, *other)["verify"]["ok"] is True


def test_from_disk_to_disk_the_model_needs_no_class(tmp_path: Path, tiny_llama: Path) -> None:
    meant = quantize(tiny_llama, tmp_path / "q", KINDS["awq"])
    config = tmp_path / "q" / "config.json"
    config.write_text(
        config.read_text().replace('"model_type": "llama"', '"model_type": "unknown"')
    )
    job = disk(tmp_path, tmp_path / "q")
    result = job.run("run", "modifier=keep", "scheme=w4a16_asym", SMALL)
    assert result["verify"]["ok"] is True
    found = meanings(tmp_path / "run" / "checkpoint")
    assert all(torch.equal(found[name], meant[f"{name}.weight"]) for name in found)
    assert len(found) == 14


@pytest.mark.parametrize(
    ("scheme", "value", "told"),
    [("w4a16", -1.0, "negative"), ("w4a16", 0.0, "0"), ("nvfp4a16", 0.0, "0")],
)
def test_scales_of_another_writer_may_be_negative_or_0(
    tmp_path: Path, tiny_llama: Path, some_text: Path, scheme: str, value: float, told: str
) -> None:
    size = [SMALL] if scheme == "w4a16" else []
    made = Job(folder=tmp_path / "made", model=tiny_llama, text=some_text)
    made.folder.mkdir()
    made.run("run", "modifier=rtn", f"scheme={scheme}", *size)
    shutil.copytree(made.folder / "run" / "checkpoint", tmp_path / "q")
    for file in (tmp_path / "q").glob("*.safetensors"):
        tensors = load_file(file)
        if (name := f"{Q}.weight_scale") in tensors:
            flat = tensors[name].float()
            flat[3, 1] *= value
            tensors[name] = flat.to(tensors[name].dtype)
            file.unlink()
            save_file(tensors, file, metadata={"format": "pt"})
    meant = meanings(tmp_path / "q")
    result = keep(tmp_path, some_text, scheme, *size)
    found = meanings(tmp_path / "run" / "checkpoint")
    assert found.keys() == meant.keys()
    assert all(torch.equal(found[name], meant[name]) for name in found)
    assert result["verify"]["ok"] is True
    warned = f"the source's scales are kept, some of which are {told}: {Q}"
    assert [text for text in result["warnings"] if warned in str(text)]
