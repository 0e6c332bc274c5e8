"""Quantized key/value caches and attention, in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM
from transformers.models.llama import modeling_llama

from pipeline.errors import UserError
from tests.jobs import Job, built
from tests.test_data_free import disk

LAYERS = 4
FP8_MAX = 448.0


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


def scales(job: Job, name: str = "run") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in (job.folder / name / "checkpoint").glob("*.safetensors"):
        found |= load_file(file)
    return {n: t for n, t in found.items() if ".self_attn." in n and n.count("_proj") == 0}


def config(job: Job, name: str = "run") -> dict[str, Any]:
    text = (job.folder / name / "checkpoint" / "config.json").read_text()
    return dict(json.loads(text)["quantization_config"])


@pytest.mark.parametrize(
    ("choice", "parts", "shape"),
    [
        ("kv_cache=fp8", {"k_scale", "v_scale"}, (1,)),
        ("kv_cache=fp8_head", {"k_scale", "v_scale"}, (2, 1, 1)),
        ("kv_cache=nvfp4", {"k_global_scale", "v_global_scale"}, (1,)),
        ("attention=fp8", {"q_scale", "k_scale", "v_scale"}, (1,)),
    ],
)
@pytest.mark.parametrize(
    "propagate", ["compressed", pytest.param("original", marks=pytest.mark.slow)]
)
def test_states_are_calibrated_written_and_checked(
    job: Job, choice: str, parts: set[str], shape: tuple[int, ...], propagate: str
) -> None:
    data = ["eval=text", f"eval.dataset.path={job.text}", "eval.dataset.num_samples=2"]
    data += ["eval.dataset.sequence_length=32", "eval.max_new_tokens=2"]
    result = job.run("run", choice, f"calibrate.propagate={propagate}", *data)
    assert result["verify"]["ok"] is True
    found = scales(job)
    names = {f"model.layers.{k}.self_attn.{part}" for k in range(LAYERS) for part in parts}
    assert found.keys() == names
    assert all(tuple(scale.shape) == shape for scale in found.values())
    _, loading = AutoModelForCausalLM.from_pretrained(
        job.folder / "run" / "checkpoint", dtype=torch.bfloat16, output_loading_info=True
    )
    assert not loading["missing_keys"]


def test_scales_are_those_of_the_states_that_transformers_computes(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ["dataset.num_samples=2", "calibrate.propagate=original"]
    job.run("run", "scheme=none", "modifier=[]", "kv_cache=fp8", *few)
    tokens = next((job.folder / "store").rglob("tokens.safetensors"))
    ids = load_file(tokens)["input_ids"].long()
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    largest: dict[int, list[float]] = {}
    eager = modeling_llama.eager_attention_forward

    def seen(module: Any, q: Any, k: Any, v: Any, *args: Any, **kw: Any) -> Any:
        largest[module.layer_idx] = [float(k.abs().max()), float(v.abs().max())]
        return eager(module, q, k, v, *args, **kw)

    monkeypatch.setattr(modeling_llama, "eager_attention_forward", seen)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        model(ids)
    for layer, (k, v) in largest.items():
        for name, value in (("k_scale", k), ("v_scale", v)):
            stored = float(scales(job)[f"model.layers.{layer}.self_attn.{name}"])
            assert stored == pytest.approx(value / FP8_MAX, rel=0.01)


def test_the_config_says_it_as_engines_read_it(job: Job) -> None:
    job.run("cache", "kv_cache=fp8")
    job.run("attention", "attention=fp8")
    cache = config(job, "cache")
    assert cache["kv_cache_scheme"]["type"] == "float" and len(cache["config_groups"]) == 1
    groups = config(job, "attention")["config_groups"].values()
    (states,) = [group for group in groups if group["weights"] is None]
    assert states["targets"] == ["LlamaAttention"]
    assert config(job, "attention")["kv_cache_scheme"] is None


@pytest.mark.slow
def test_another_cache_format_leaves_the_weights_alone(job: Job) -> None:
    how = "calibrate.propagate=original"
    job.run("one", how, "kv_cache=fp8")
    other = built(job.run("two", how, "kv_cache=fp8_head"))
    assert {f"cache[{k}]" for k in range(LAYERS)} <= other
    assert not {name for name in other if name.startswith("compress")}


def test_generation_sees_the_rounded_cache(job: Job) -> None:
    data = ["eval=text", f"eval.dataset.path={job.text}", "eval.dataset.num_samples=4"]
    data += ["eval.dataset.sequence_length=64", "eval.prompts=[]"]
    dense = ["scheme=none", "modifier=[]"]
    plain = job.run("plain", *dense, *data)
    rounded = job.run("rounded", *dense, "kv_cache=nvfp4", *data)
    assert plain["eval"]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert rounded["eval"]["kl"] > 1e-7


def test_states_need_a_graph_that_calibrates(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(UserError, match="graph=calibrated"):
        disk(tmp_path, tiny_llama).run("run", "scheme=fp8_dynamic", "kv_cache=fp8")
