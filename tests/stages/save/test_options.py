"""What `save` can be told: dense weights, a limit of file sizes; and what it carries along."""

from __future__ import annotations

import errno
import json
import os
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
from pipeline.stage import Estimate
from stages.formats.compressed_layer import CompressedLayer
from stages.save import shards
from stages.save.stage import Save, SaveConfig, SaveOptions
from stages.verify import checkpoint_under_test as subject
from stages.weights import open_checkpoint
from tests.benchmarks.random_llama import write_tokenizer
from tests.jobs import Job
from tests.stages.model.site import FakeSite
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
    plain = checkpoints.save(model, load("w4a16"), tmp_path / "plain", max_shard_bytes=None)
    saved = checkpoints.save(model, load("w4a16"), tmp_path / "limited", max_shard_bytes=limit)
    index = index_of(saved.folder)
    files = sorted(saved.folder.glob("*.safetensors"))
    for path in files:
        held = load_file(path)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= limit
        assert {name for name, file in index["weight_map"].items() if file == path.name} == set(
            held
        )
        assert path.name.endswith(f"-of-{len(files):05d}.safetensors") or len(files) == 1
    ours, theirs = tensors_of(saved.folder), tensors_of(plain.folder)
    assert ours.keys() == theirs.keys() == index["weight_map"].keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in ours.values())


def index_of(folder: Path) -> dict[str, Any]:
    """The index of a checkpoint; of one in a single file, what it would be."""
    path, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if not single.exists():
        return dict(json.loads(path.read_text()))
    assert not path.exists() and [*folder.glob("*.safetensors")] == [single]
    held = load_file(single)
    total = sum(tensor.nbytes for tensor in held.values())
    return {"weight_map": dict.fromkeys(held, single.name), "metadata": {"total_size": total}}


def test_a_small_model_is_one_file_and_loads(model: Tiny, tmp_path: Path) -> None:
    saved = checkpoints.save(model, load("w4a16"), tmp_path)
    assert (
        index_of(saved.folder)["weight_map"].keys() == open_checkpoint(saved.folder).specs().keys()
    )
    loaded, info = AutoModelForCausalLM.from_pretrained(saved.folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.model.layers[0].mlp.up_proj.quantization_scheme.weights.num_bits == 4


@pytest.mark.parametrize(
    "refusal", [errno.EXDEV, pytest.param(errno.ENOSYS, marks=pytest.mark.slow), None]
)
def test_where_the_kernel_cannot_copy_the_bytes_are_the_same(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    """After half of a tensor was copied, too; some file systems copy nothing and say so."""
    plain = checkpoints.save(model, load("w4a16"), tmp_path / "plain", max_shard_bytes=100_000)
    copy, calls = os.copy_file_range, iter(range(10**9))

    def copies_half(source: int, target: int, count: int, *at: int) -> int:
        if next(calls) % 2 == 0 and count > 1:
            return copy(source, target, count // 2, *at)
        if refusal is None:
            return 0
        raise OSError(refusal, "not here")

    monkeypatch.setattr("os.copy_file_range", copies_half)
    other = checkpoints.save(model, load("w4a16"), tmp_path / "other", max_shard_bytes=100_000)
    assert next(calls) > 10
    for path in plain.folder.glob("model*"):
        assert (other.folder / path.name).read_bytes() == path.read_bytes()


def test_a_disk_that_fills_up_while_copying_is_told(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, write = open_checkpoint(model.path), os.pwrite

    def full(*args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def header_only(file: int, data: bytes, start: int) -> int:
        return full() if start else write(file, data, start)

    monkeypatch.setattr("os.copy_file_range", full)
    monkeypatch.setattr("os.pwrite", header_only)
    with pytest.raises(OSError, match="No space left"):
        shards.gather(tmp_path / "copy", [(source, spec) for spec in source.specs().values()])


def test_the_plan_counts_what_is_copied(model: Tiny, tmp_path: Path) -> None:
    saved = checkpoints.save(model, load("w4a16"), tmp_path)
    site = FakeSite(facts={"model": model.blueprint()})

    def cost(limit: int | None) -> Estimate:
        options = SaveOptions(max_shard_bytes=limit)
        return Save(SaveConfig(scheme=load("w4a16"), save=options)).survey(site).estimates[None]

    copied, linked = cost(5_000_000_000), cost(None)
    whole = saved.result["size"]["compressed_bytes"]
    layers = sum((a.path / "shard.safetensors").stat().st_size for a in saved.layers.artifacts)
    assert copied.bytes == pytest.approx(whole, rel=0.01)
    assert copied.bytes - linked.bytes == pytest.approx(layers, rel=0.05)
    assert copied.seconds > linked.seconds and copied.memory == linked.memory


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
    assert size["bits_per_weight"] == size["whole_bits_per_weight"] == 16.0


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
