"""Heads of all kinds: tied with and without a tensor, untied, missing; encoder-decoders."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from pipeline.errors import UserError
from stages.model.blueprint_from_class import blueprint_of
from stages.model.blueprint_from_names import outline_of
from stages.model.meta_model import UnknownArchitecture, class_of, config_of
from stages.schemes.resolve import resolve
from stages.weights.safetensors_source import SafetensorsSource
from tests.benchmarks.random_llama import write_tokenizer
from tests.families.job import run_job
from tests.frozen.models import write_text
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.schemes.presets import load
from tests.stages.verify.headers import Headers

IDS = torch.arange(8, 40)[None]
SMALL: dict[str, Any] = {
    **{"vocab_size": 320, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2},
    **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
    **{"encoder_ffn_dim": 96, "decoder_ffn_dim": 96},
}
WHISPER = WhisperConfig(
    **SMALL,
    **{"num_mel_bins": 16, "max_source_positions": 32, "max_target_positions": 64},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1},
)
T5 = T5Config(vocab_size=320, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4)
BART = BartConfig(**SMALL, max_position_embeddings=64)
WHOLE = {
    "whisper": (WhisperForConditionalGeneration, WHISPER, "proj_out", "model.decoder.embed_tokens"),
    "t5": (T5ForConditionalGeneration, T5, "lm_head", "shared"),
    "bart": (BartForConditionalGeneration, BART, "lm_head", "model.shared"),
}


def written(name: str, folder: Path) -> PreTrainedModel:
    cls, config, *_ = WHOLE[name]
    torch.manual_seed(0)
    model: PreTrainedModel = cls(config).to(torch.bfloat16).eval()
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return model


def rewritten(model: Tiny, head: torch.Tensor | None) -> dict[str, Any]:
    """The specs of a tiny model's tensors, once its lm_head is another, or none."""
    path = model.path / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("lm_head.weight", None)
    save_file(tensors | ({} if head is None else {"lm_head.weight": head}), path, {"format": "pt"})
    return dict(SafetensorsSource.of_file(path).specs())


@pytest.mark.parametrize("stored", [False, True])
def test_a_tied_head_is_its_own_tensor_where_there_is_one(stored: bool, tmp_path: Path) -> None:
    model = tiny("llama", tmp_path, tie_word_embeddings=True)
    embedding = load_file(model.path / "model.safetensors")["model.embed_tokens.weight"]
    specs = rewritten(model, torch.randn_like(embedding) if stored else None)
    wanted = "lm_head.weight" if stored else "model.embed_tokens.weight"
    for found in (blueprint_of(model.config, specs=specs), outline_of(model.config, specs, why="")):
        assert (found.tied, found.head) == (True, "lm_head")
        assert found.outside["lm_head.weight"] == wanted
        assert found.untied().outside["lm_head.weight"] == "lm_head.weight"


def test_an_untied_head_that_is_missing_is_an_error_before_the_run(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path, tie_word_embeddings=False)
    specs = rewritten(model, None)
    with pytest.raises(UserError, match=r"no tensor for lm_head\.weight"):
        blueprint_of(model.config, specs=specs)
    with pytest.raises(UserError, match="tie_word_embeddings: false, and no tensor is the lm_head"):
        outline_of(model.config, specs, why="")
    # a model that gives embeddings has no head, and no error either
    assert outline_of({**model.config, "architectures": ["LlamaModel"]}, specs, why="").head == ""
    # and a head may have any name: its rows tell
    specs["my_output_layer.weight"] = specs["model.embed_tokens.weight"]
    assert outline_of(model.config, specs, why="").head == ""


@pytest.mark.parametrize("name", WHOLE)
def test_encoder_decoders_are_outlined_with_both_parts(name: str, tmp_path: Path) -> None:
    written(name, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    specs = SafetensorsSource.of_file(tmp_path / "model.safetensors").specs()
    cls, _, head, embedding = WHOLE[name]
    with pytest.raises(UnknownArchitecture, match=f"{cls.__name__} is an encoder-decoder"):
        blueprint_of(config, specs=specs)
    assert class_of(config_of(config)) is cls
    found = outline_of(config, specs, why="a test")
    assert (found.tied, found.head, found.embedding) == (True, head, embedding)
    assert sum("encoder" in member for member in found.members) == 2
    assert sum("decoder" in member for member in found.members) == 2
    everything = resolve(load("fp8_dynamic"), found).checked()
    assert head not in everything and embedding not in everything
    assert Headers.of(found, load("fp8_dynamic")).verdict().loads  # a name in `ignore` that it has


def test_a_head_that_three_share_cannot_be_compressed(tmp_path: Path) -> None:
    written("bart", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    specs = SafetensorsSource.of_file(tmp_path / "model.safetensors").specs()
    found = outline_of(config, specs, why="a test")
    scheme = replace(load("fp8_dynamic"), ignore=[])
    with pytest.raises(UserError, match=r"encoder, decoder and lm_head share model\.shared"):
        resolve(scheme, found).checked()


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_encoder_decoders_load_with_the_right_values(name: str, tmp_path: Path) -> None:
    model = written(name, tmp_path / "model")
    write_text(tmp_path / "text.txt")
    run_job("fp8_dynamic", tmp_path / "model", tmp_path / "text.txt", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["engines"]["transformers"]["loads"] is True
    loaded, info = type(model).from_pretrained(
        tmp_path / "run" / "checkpoint", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(info.values())
    sound = torch.randn(1, 16, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    given = {"input_features": sound} if name == "whisper" else {"input_ids": IDS}
    with torch.no_grad():
        wanted = model(**given, decoder_input_ids=IDS).logits.float()
        found = loaded.eval()(**given, decoder_input_ids=IDS).logits.float()
    error = float((found - wanted).norm() / wanted.norm())
    assert 0 < error < 0.15
    stored = {
        key.removesuffix(".weight_scale")
        for file in (tmp_path / "run" / "checkpoint").glob("*.safetensors")
        for key in load_file(file)
        if key.endswith(".weight_scale")
    }
    linears = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    assert stored == {n for n in linears if re.search(r"coder\.(layers|block)\.", n)}
    assert linears - stored == {WHOLE[name][2]}


@pytest.mark.slow
@pytest.mark.parametrize("head", ["none", "same", "other"])
def test_tied_models_load_with_the_right_values(head: str, tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, tie_word_embeddings=True)
    write_tokenizer(model.path)
    embedding = load_file(model.path / "model.safetensors")["model.embed_tokens.weight"]
    heads = {"none": None, "same": embedding.clone(), "other": torch.randn_like(embedding)}
    rewritten(model, heads[head])
    original = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.bfloat16)
    write_text(tmp_path / "text.txt")
    run_job("fp8_dynamic", model.path, tmp_path / "text.txt", tmp_path / "run")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run/checkpoint", dtype=torch.bfloat16)
    with torch.no_grad():
        wanted, found = original(IDS).logits.float(), loaded(IDS).logits.float()
    assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.15
