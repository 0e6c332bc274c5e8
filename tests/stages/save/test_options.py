"""What `save` can be told: dense weights, a limit of file sizes; and what it carries along."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from pipeline.errors import StageFailed, UserError
from stages.formats.compressed_layer import CompressedLayer
from stages.save.stage import SaveOptions
from stages.verify import checkpoint_under_test as subject
from stages.weights import open_checkpoint
from tests.benchmarks.random_llama import write_tokenizer
from tests.jobs import Job
from tests.stages.model.tiny import COMMON, Tiny, tiny
from tests.stages.save import checkpoints
from tests.stages.save.checkpoints import WIDE
from tests.stages.schemes.presets import load

MTP = "model.layers.2"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), dtype=torch.bfloat16, **WIDE)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    return {
        n: t for path in sorted(folder.glob("*.safetensors")) for n, t in load_file(path).items()
    }


@pytest.mark.parametrize("limit", [1, 20_000, 100_000, 10_000_000])
def test_no_file_is_larger_than_the_limit_unless_by_one_tensor(
    model: Tiny, tmp_path: Path, limit: int
) -> None:
    plain = checkpoints.save(model, load("w4a16"), tmp_path / "plain")
    saved = checkpoints.save(model, load("w4a16"), tmp_path / "limited", max_shard_bytes=limit)
    index = json.loads((saved.folder / "model.safetensors.index.json").read_text())
    files = sorted(saved.folder.glob("*.safetensors"))
    for path in files:
        held = load_file(path)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= limit
        assert {name for name, file in index["weight_map"].items() if file == path.name} == set(
            held
        )
        assert path.name.endswith(f"-of-{len(files):05d}.safetensors")
    ours, theirs = tensors_of(saved.folder), tensors_of(plain.folder)
    assert ours.keys() == theirs.keys() == index["weight_map"].keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in ours.values())


def test_layers_within_the_limit_stay_links(model: Tiny, tmp_path: Path) -> None:
    saved = checkpoints.save(model, load("w4a16"), tmp_path, max_shard_bytes=1_000_000)
    shards = [artifact.path / "shard.safetensors" for artifact in saved.layers.artifacts]
    files = sorted(saved.folder.glob("*.safetensors"))[-len(shards) :]
    assert all(file.samefile(shard) for file, shard in zip(files, shards, strict=True))


@pytest.mark.parametrize("scheme", ["w4a16_asym", "nvfp4a16", "mxfp4", "fp8_dynamic"])
def test_dense_weights_are_those_that_loaders_would_unpack(
    model: Tiny, tmp_path: Path, scheme: str
) -> None:
    saved = checkpoints.save(model, load(scheme), tmp_path, compressed=False)
    config = json.loads((saved.folder / "config.json").read_text())
    assert config == model.config
    loaded = AutoModelForCausalLM.from_pretrained(saved.folder, dtype=torch.bfloat16)
    original = model.source.tensors
    for artifact in saved.layers.artifacts:
        layer = CompressedLayer(artifact)
        names = [f"{prefix}.weight" for prefix in layer.weights.schemes]
        for name, weight in layer.weights.read(names).items():
            assert torch.equal(loaded.state_dict()[name], weight)
            assert not torch.equal(original[name], weight)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert torch.equal(loaded.state_dict()[name], original[name])


def test_a_dense_checkpoint_says_what_it_is(model: Tiny, tmp_path: Path) -> None:
    saved = checkpoints.save(model, load("w4a16"), tmp_path, compressed=False)
    card = (saved.folder / "README.md").read_text()
    assert "save.compressed=false" in card and "W4A16 g128 | 14" in card
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["presswork"]
    size = saved.result["size"]
    assert size["compressed_bytes"] == size["original_bytes"]
    assert size["bits_per_weight"] == 16.0


def test_verify_knows_dense_weights_and_finds_wrong_ones(
    tmp_path: Path, tiny_llama: Path, some_text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    more = ["modifier=rtn", "save.compressed=false"]
    assert job.run("run", *more)["verify"]["ok"] is True

    healthy = subject.open_checkpoint

    class Wrong:
        def __init__(self, folder: Path) -> None:
            self.source = healthy(folder)
            self.specs = self.source.specs

        def read(self, names: list[str], **more: Any) -> dict[str, Tensor]:
            found = self.source.read(names, **more)
            return {n: t + 0.01 if "layers.1.mlp.up" in n else t for n, t in found.items()}

    monkeypatch.setattr(subject, "open_checkpoint", Wrong)
    with pytest.raises(StageFailed, match=r"layers.1.mlp.up_proj.weight is another weight"):
        job.run("again", *more, f"store.dir={job.folder / 'other'}")


def test_a_limit_of_no_bytes_is_refused() -> None:
    with pytest.raises(UserError, match="max_shard_bytes is 0"):
        SaveOptions(max_shard_bytes=0)


def with_prediction_layer(folder: Path) -> dict[str, Tensor]:
    """A tiny DeepSeek-V3 whose checkpoint has a layer for predicting one token more."""
    settings = {
        **COMMON,
        "vocab_size": 320,
        "num_hidden_layers": 2,
        "first_k_dense_replace": 2,
        "num_nextn_predict_layers": 1,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
        "n_routed_experts": 4,
        "num_key_value_heads": 4,
    }
    config = transformers.CONFIG_MAPPING["deepseek_v3"](**settings)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder)
    tensors = load_file(folder / "model.safetensors")
    last = {n: t for n, t in tensors.items() if n.startswith("model.layers.1.")}
    extra = {n.replace("model.layers.1", MTP): t * 2 for n, t in last.items()}
    for name, shape in {
        "eh_proj": (64, 128),
        "enorm": (64,),
        "shared_head.norm": (64,),
        "shared_head.head": (320, 64),
        "mlp.experts.0.up_proj": (96, 64),
    }.items():
        extra[f"{MTP}.{name}.weight"] = torch.randn(shape, dtype=torch.bfloat16)
    save_file(tensors | extra, folder / "model.safetensors", metadata={"format": "pt"})
    return extra


def test_layers_that_only_engines_know_are_carried_and_ignored(
    tmp_path: Path, some_text: Path
) -> None:
    extra = with_prediction_layer(tmp_path / "model")
    job = Job(folder=tmp_path, model=tmp_path / "model", text=some_text)
    scheme = ["modifier=rtn", "scheme=w8a16", "scheme.weights.group_size=32"]
    assert job.run("run", *scheme)["verify"]["ok"] is True
    folder = tmp_path / "run" / "checkpoint"
    saved = open_checkpoint(folder).read(extra)
    assert all(torch.equal(saved[name], extra[name]) for name in extra)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_nextn_predict_layers"] == 1
    ignored = set(QuantizationConfig.model_validate(config["quantization_config"]).ignore)
    linears = {n.removesuffix(".weight") for n, t in extra.items() if t.dim() == 2}
    assert linears <= ignored
    assert {name for name in ignored if name.startswith(MTP)} == linears


def test_every_kind_of_small_file_comes_along(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    small = {
        "preprocessor_config.json": "{}",
        "processor_config.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "additional_chat_templates/tool.jinja": "{{ tools }}",
        "generation_config.json": "{}",
        "vocab.txt": "a",
        "LICENSE": "free",
        "modeling_own.py": "x = 1",
    }
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_llama.iterdir():
        shutil.copyfile(path, folder / path.name)
    for name, text in small.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    job = Job(folder=tmp_path, model=folder, text=some_text)
    job.run("run", "modifier=rtn", "model.trust_remote_code=true")
    saved = tmp_path / "run" / "checkpoint"
    assert {name: (saved / name).read_text() for name in small} == small
    names = {path.name for path in saved.iterdir()}
    assert not names & {"source.json", "layer.json", "shard.safetensors", "blueprint.json"}
