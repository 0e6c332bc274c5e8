"""transformers loads what is saved: no key too few or too many, and the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.compressors import ModelCompressor
from transformers import AutoModelForCausalLM, PreTrainedModel

from stages.compress.modifiers import Gptq, SmoothQuant
from stages.formats.decompressed_source import Decompressed
from stages.formats.quantization_config import quantization_config
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from stages.weights import open_checkpoint
from tests.loading import NEEDS_DENSE, loading_options
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.save.checkpoints import EXPERTS, WIDE, Saved, save
from tests.stages.schemes.presets import QUANTIZED, group, load

# transformers (5.17, 5.24) unpacks experts itself while it merges them, and only from the tensors
# named here; for w4a16_asym and w8a8 it cannot do it at all. Its readers of the same formats in
# Linears are compressed-tensors' own.
MOE_LOADS = ("w4a16", "w4a16_g64", "w8a16", "fp8_dynamic", "fp8", "mxfp4")
EXPERT_LEFTOVERS = {
    "fp8": ("input_scale",),
    "nvfp4": ("weight_global_scale", "input_global_scale"),
    "nvfp4a16": ("weight_global_scale",),
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), dtype=torch.bfloat16, **WIDE)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("qwen3_moe", tmp_path_factory.mktemp("moe"), dtype=torch.bfloat16, **EXPERTS)


def loaded(
    saved: Saved, leftovers: tuple[str, ...] = (), options: dict[str, Any] | None = None
) -> PreTrainedModel:
    """The model as transformers loads it, decompressed; it must have found every key.

    `leftovers`: parts of experts that it has no use for. `options` of `from_pretrained`.
    """
    model, info = AutoModelForCausalLM.from_pretrained(
        saved.folder, output_loading_info=True, dtype=torch.bfloat16, **(options or {})
    )
    assert not info["missing_keys"]
    unexpected = {key for key in info["unexpected_keys"] if not key.endswith(leftovers)}
    assert not unexpected
    assert all(".experts." in key for key in info["unexpected_keys"])
    assert not info["mismatched_keys"]
    assert not info.get("error_msgs")
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None and not options:
        compressor: ModelCompressor = quantizer.compressor
        compressor.decompress_model(model)
    return model


def ours(saved: Saved) -> Decompressed:
    blueprint = saved.model.blueprint()
    config = json.loads((saved.folder / "config.json").read_text())["quantization_config"]
    assert config["ignore"]
    return Decompressed(open_checkpoint(saved.folder), config, getattr(torch, blueprint.dtype))


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_dense_model_loads_with_our_weights(tmp_path: Path, llama: Tiny, name: str) -> None:
    saved = save(llama, load(name), tmp_path)
    model, source = loaded(saved, options=loading_options(name)), ours(saved)
    for linear in llama.blueprint().layers[1].linears:
        weight = source.read([f"{linear.prefix}.weight"])[f"{linear.prefix}.weight"]
        assert torch.equal(model.get_submodule(linear.name).weight, weight)


@pytest.mark.skipif(not NEEDS_DENSE, reason="transformers before 5.23.0 loads packed zero points")
def test_packed_zero_points_are_an_error_unless_weights_are_dequantized(
    tmp_path: Path, llama: Tiny
) -> None:
    saved = save(llama, load("w4a16_asym"), tmp_path)
    with pytest.raises(RuntimeError, match="mismatched_sizes"):
        loaded(saved)


@pytest.mark.parametrize("name", MOE_LOADS)
def test_a_mixture_of_experts_loads_with_our_weights(tmp_path: Path, moe: Tiny, name: str) -> None:
    saved = save(moe, load(name), tmp_path)
    model, source = loaded(saved, EXPERT_LEFTOVERS.get(name, ())), ours(saved)
    experts = model.get_submodule("model.layers.1.mlp.experts")
    for index in range(4):
        prefix = f"model.layers.1.mlp.experts.{index}"
        names = [f"{prefix}.{part}_proj.weight" for part in ("gate", "up", "down")]
        gate, up, down = source.read(names).values()
        assert torch.equal(experts.gate_up_proj[index], torch.cat([gate, up]))
        assert torch.equal(experts.down_proj[index], down)


@pytest.mark.parametrize("name", ["nvfp4", "nvfp4a16"])
def test_nvfp4_experts_lose_only_their_global_scales(tmp_path: Path, moe: Tiny, name: str) -> None:
    saved = save(moe, load(name), tmp_path)
    model, source = loaded(saved, EXPERT_LEFTOVERS[name]), ours(saved)
    q = "model.layers.1.self_attn.q_proj"
    assert torch.equal(model.get_submodule(q).weight, source.read([f"{q}.weight"])[f"{q}.weight"])


def test_mixed_formats_load(tmp_path: Path, llama: Tiny) -> None:
    eight = group("w8a8")
    down = SchemeGroup(
        weights=eight.weights,
        input_activations=eight.input_activations,
        targets=["re:.*down_proj$"],
    )
    scheme = SchemeConfig(
        weights=group("w4a16").weights,
        groups={"down": down},
        ignore=["lm_head", "model.layers.1.self_attn.o_proj"],
    )
    saved = save(llama, scheme, tmp_path)
    model, source = loaded(saved), ours(saved)
    for linear in llama.blueprint().layers[1].linears:
        weight = source.read([f"{linear.prefix}.weight"])[f"{linear.prefix}.weight"]
        assert torch.equal(model.get_submodule(linear.name).weight, weight)


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi3"])
def test_the_dense_families_load_after_smoothing_and_gptq(tmp_path: Path, family: str) -> None:
    wide = {name: value for name, value in WIDE.items() if name != "num_hidden_layers"}
    model = tiny(family, tmp_path / "model", dtype=torch.bfloat16, **wide)
    saved = save(model, load("w8a8"), tmp_path, (SmoothQuant(), Gptq()))
    with torch.no_grad():
        ids = torch.arange(3, 19)[None]
        original = model.original().to(torch.bfloat16)(ids).logits.float()
        logits = loaded(saved)(ids).logits.float()
    assert (logits - original).norm() < 0.2 * original.norm()


def test_a_mixtral_checkpoint_keeps_the_names_that_loaders_take(tmp_path: Path) -> None:
    changes = {**WIDE, "num_local_experts": 4}
    model = tiny("mixtral", tmp_path / "model", dtype=torch.bfloat16, **changes)
    saved = save(model, load("w4a16"), tmp_path)
    names = set(open_checkpoint(saved.folder).specs())
    blueprint = model.blueprint()
    for linear in blueprint.layers[0].linears:
        assert f"{linear.prefix}.weight_packed" in names
    resolved = resolve(load("w4a16"), blueprint).checked()
    config = quantization_config(resolved, blueprint)
    assert any("gate" in name for name in config["ignore"])
    loaded(saved)
