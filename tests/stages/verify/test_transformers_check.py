"""Checkpoints load in transformers as its own from_pretrained loads them; limits are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from pipeline.errors import StageFailed
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_class import blueprint_of
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from stages.schemes.transformers_support import expert_limit, transformers_notes
from stages.verify import transformers_merges
from stages.verify.stage import Verify, VerifyConfig
from stages.verify.transformers_check import NAME
from stages.verify.transformers_initialization import KIND
from stages.weights import TensorSpec
from tests.families import tiny as families
from tests.families.case import Case
from tests.families.drive import CASES
from tests.loading import unread
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.tiny import Folder, Tiny, tiny
from tests.stages.save.checkpoints import EXPERTS, WIDE, Saved, run, save
from tests.stages.schemes.presets import QUANTIZED, load
from tests.stages.verify.headers import Headers
from tests.stages.verify.test_verify import settings, verify

RENAMED = ("llava", "gemma3", "mistral3", "qwen2_vl", "qwen2_5_vl", "gpt_neox", "phimoe")
"""Families whose names on disk are not those of transformers' module tree."""
SOME = [
    name if name in ("llava", "gpt_neox", "phimoe") else pytest.param(name, marks=pytest.mark.slow)
    for name in RENAMED
]
"""The same, with one of each kind of renaming by default."""
ERROR = {"fp8_dynamic": 0.25, "w4a16": 0.6}
"""Relative error of the logits of random weights; without scales it is about 1, or NaN."""
EQUAL = 0.01
"""The same against dense weights with the values of the codes: bfloat16 rounds differently."""
NEEDS_IMAGES = version("transformers").startswith("5.24.")
"""Whether the forward of a whole Llama 4 fails in transformers where it is given text alone."""
MOE = ("qwen3_moe", "mixtral")


def case_of(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def family(name: str, folder: Path) -> Tiny:
    """A tiny model as transformers saves it."""
    families.write(case_of(name), folder)
    config = json.loads((folder / "config.json").read_text())
    return Tiny(path=folder, source=Folder(folder), config=config)


def scheme(name: str) -> SchemeConfig:
    """A preset with groups that fit into tiny widths."""
    found = load(name)
    weights = found.weights
    if weights is not None and weights.strategy == "group" and name.startswith("w"):
        return replace(found, weights=replace(weights, group_size=16))
    return found


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.arange(8, 72)[None]).logits.float()
    return found


def error(saved: Path, original: PreTrainedModel) -> tuple[float, Mapping[str, Any]]:
    """Relative error of the logits of a checkpoint in transformers, and what it says of names."""
    model, info = type(original).from_pretrained(
        saved, dtype=torch.bfloat16, output_loading_info=True
    )
    wanted = logits(original)
    return float((logits(model) - wanted).norm() / wanted.norm()), info


def names_on_disk_only(saved: Saved) -> None:
    """Take the names of the module tree out of `ignore` and `targets` again."""
    trees = {linear.name for linear in saved.model.blueprint().linears()}
    disk = {linear.prefix for linear in saved.model.blueprint().linears()}

    def change(config: dict[str, Any]) -> None:
        quantization = config["quantization_config"]
        listed = quantization["ignore"]
        assert set(listed) & (trees - disk)
        quantization["ignore"] = [name for name in listed if name not in trees - disk]

    settings(saved.folder, change)


@pytest.mark.parametrize("preset", ERROR)
@pytest.mark.parametrize("name", SOME)
def test_renamed_families_load(tmp_path: Path, name: str, preset: str) -> None:
    model = family(name, tmp_path / "model")
    saved = save(model, scheme(preset), tmp_path)
    (check,) = (c for c in verify(saved, saved.folder)["checks"] if c["name"] == NAME)
    assert check == {"name": NAME, "ok": True, "detail": ""}
    original = families.class_of(case_of(name)).from_pretrained(model.path, dtype=torch.bfloat16)
    found, info = error(saved.folder, original)
    assert not any(info.values())
    assert found < ERROR[preset]
    if preset == "w4a16":  # no rounding of activations: the very weights that the codes stand for
        (tmp_path / "dense").mkdir()
        plain = save(model, scheme(preset), tmp_path / "dense", compressed=False)
        dense = type(original).from_pretrained(plain.folder, dtype=torch.bfloat16)
        assert error(saved.folder, dense)[0] < EQUAL


@pytest.mark.parametrize("name", SOME)
def test_names_on_disk_alone_fail_the_check(tmp_path: Path, name: str) -> None:
    saved = save(family(name, tmp_path / "model"), scheme("fp8_dynamic"), tmp_path)
    names_on_disk_only(saved)
    with pytest.raises(StageFailed, match=f"{NAME}: .*weight_scale gets no tensor"):
        verify(saved, saved.folder)
    with pytest.raises(StageFailed, match=r"ignore: .* is dense, but not in ignore") as failed:
        verify(saved, saved.folder, loader="none")
    assert NAME not in str(failed.value)


def test_a_module_that_is_read_in_another_format_fails_the_check(tmp_path: Path) -> None:
    down = SchemeGroup(weights=QArgs(num_bits=8, strategy="group", group_size=16))
    found = replace(
        scheme("w4a16"), groups={"down": replace(down, targets=["re:model.*down_proj"])}
    )
    saved = save(family("llava", tmp_path / "model"), found, tmp_path)
    assert verify(saved, saved.folder)["ok"]

    def change(config: dict[str, Any]) -> None:
        groups = config["quantization_config"]["config_groups"]
        named = next(g for g in groups.values() if g["weights"]["num_bits"] == 8)
        assert "model.language_model.layers.0.mlp.down_proj" in named["targets"]
        named["targets"] = [t for t in named["targets"] if t.startswith("language_model")]
        other = next(g for g in groups.values() if g["weights"]["num_bits"] == 4)
        other["targets"] = ["Linear"]

    settings(saved.folder, change)
    with pytest.raises(StageFailed, match=f"{NAME}: .*down_proj"):
        verify(saved, saved.folder)


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Blueprint]:
    folder = tmp_path_factory.mktemp("mixtures")
    return {
        name: tiny(
            name, folder / name, dtype=torch.bfloat16, **(EXPERTS if "qwen" in name else WIDE)
        ).blueprint()
        for name in MOE
    }


@pytest.mark.parametrize("preset", QUANTIZED)
@pytest.mark.parametrize("name", MOE)
def test_the_table_of_formats_of_experts_is_what_loading_says(
    mixtures: dict[str, Blueprint], name: str, preset: str
) -> None:
    found = Headers.of(mixtures[name], load(preset)).verdict()
    ((_, group),) = load(preset).ordered()
    assert not found.faults
    assert any("experts" in limit for limit in found.limits) == bool(expert_limit(group))
    assert found.loads == (not found.limits)


@pytest.mark.parametrize("preset", QUANTIZED)
def test_dense_formats_load_but_for_packed_zero_points(tmp_path: Path, preset: str) -> None:
    model = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, **WIDE).blueprint()
    found = Headers.of(model, load(preset)).verdict()
    assert not found.faults
    assert found.loads == (not unread(preset))
    notes = list(transformers_notes(resolve(load(preset), model).checked(), model))
    assert bool(notes) == (preset == "w4a16_asym")


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "llama4", "granitemoe", "gpt_oss", "phimoe"])
def test_plans_say_which_experts_are_not_read(name: str) -> None:
    config = families.config_of(case_of(name))
    plain = json.loads(config.to_json_string(use_diff=False)) | {"dtype": "bfloat16"}
    if name == "llama4" and NEEDS_IMAGES:
        with pytest.raises(StageFailed, match="image_outputs"):
            blueprint_of(plain)
        return
    model = blueprint_of(plain)
    for preset in ("fp8_dynamic", "nvfp4a16"):
        found = Headers.of(model, load(preset)).verdict()
        notes = list(transformers_notes(resolve(load(preset), model).checked(), model))
        assert not found.faults
        assert any("experts" in note for note in notes) == bool(found.limits)
        assert found.loads == (name == "llama4" or (name == "phimoe" and preset != "nvfp4a16"))


def test_modules_that_layers_share_are_a_limit_of_transformers() -> None:
    config = families.config_of(case_of("zamba2"))
    plain = json.loads(config.to_json_string(use_diff=False)) | {"dtype": "bfloat16"}
    model = blueprint_of(plain)
    found = Headers.of(model, load("fp8_dynamic")).verdict()
    assert not found.faults and found.loads is False
    assert "modules that layers share" in found.limits[0]
    (note,) = transformers_notes(resolve(load("fp8_dynamic"), model).checked(), model)
    assert "modules that layers share" in note


@pytest.mark.parametrize("preset", ["w4a16", "nvfp4a16", "w8a8", "fp8"])
def test_verdicts_on_experts_are_those_of_from_pretrained(tmp_path: Path, preset: str) -> None:
    model = tiny("qwen3_moe", tmp_path / "model", dtype=torch.bfloat16, **EXPERTS)
    saved = save(model, load(preset), tmp_path)
    headers = Headers.of(model.blueprint(), load(preset)).verdict()
    try:
        loads = error(saved.folder, model.original())[0] < 0.6
    except RuntimeError:
        loads = False
    assert headers.loads == loads == (preset in ("w4a16", "fp8"))
    (check,) = (c for c in verify(saved, saved.folder)["checks"] if c["name"] == NAME)
    assert check == headers.check()
    assert check["ok"] is (True if loads else None)


def test_a_quantized_head_and_embedding_are_told(tmp_path: Path) -> None:
    model = tiny("qwen3", tmp_path / "model", dtype=torch.bfloat16, **WIDE).blueprint()
    head = replace(load("w8a16"), ignore=[], groups={})
    assert Headers.of(model, head).verdict().loads
    found = Headers.of(model, replace(head, targets=["Linear", "Embedding"])).verdict()
    assert not found.faults and found.loads is False
    assert "compressed embeddings: model.embed_tokens has no weight" in found.limits[0]
    fp8 = replace(load("fp8_dynamic"), input_activations=None, ignore=[])
    whole = Headers.of(model, replace(fp8, targets=["Linear", "Embedding"])).verdict()
    assert whole.loads


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("falcon", "transformer.h.0.self_attention.query_key_value has no weight but packed"),
        ("mamba", "backbone.layers.0.mixer is not initialized: AttributeError"),
    ],
)
def test_initialization_that_asks_for_packed_weights_is_a_limit(name: str, told: str) -> None:
    config = families.config_of(case_of(name))
    model = blueprint_of(json.loads(config.to_json_string(use_diff=False)) | {"dtype": "bfloat16"})
    found = Headers.of(model, scheme("w4a16")).verdict()
    assert not found.faults and found.loads is False
    (limit,) = found.limits
    assert limit.startswith(f"{KIND}: {told}")
    assert Headers.of(model, scheme("fp8_dynamic")).verdict().loads


def test_a_whole_without_a_forward_is_never_decompressed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", torch.nn.Module.forward)
    config = transformers.LlamaConfig(**WIDE)
    model = blueprint_of(json.loads(config.to_json_string(use_diff=False)) | {"dtype": "bfloat16"})
    found = Headers.of(model, load("fp8_dynamic")).verdict()
    assert not found.faults and found.loads is False
    assert "has no forward of its own" in found.limits[0] and "dequantize=True" in found.limits[0]


@pytest.mark.slow
def test_qwen3_omni_is_such_a_whole() -> None:
    config = families.config_of(case_of("qwen3_omni_moe"))
    model = blueprint_of(json.loads(config.to_json_string(use_diff=False)) | {"dtype": "bfloat16"})
    found = Headers.of(model, load("fp8_dynamic")).verdict()
    assert "Qwen3OmniMoeForConditionalGeneration has no forward of its own" in found.limits[0]


def test_what_is_initialized_from_values_fails_no_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(self: Any, module: Any) -> None:
        del self
        if isinstance(module, torch.nn.Embedding):
            module.weight.max().item()  # no tensor of the meta device has a value

    monkeypatch.setattr(transformers.LlamaPreTrainedModel, "_init_weights", init)
    config = transformers.LlamaConfig(**WIDE)
    model = blueprint_of(json.loads(config.to_json_string(use_diff=False)) | {"dtype": "bfloat16"})
    assert Headers.of(model, load("w4a16")).verdict().loads


def test_dense_weights_that_a_quantizer_loses_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {i: [f"layers.{i}.{n}_conv1d.weight" for n in "qk"] for i in (0, 1)}
    specs = {n: TensorSpec(name=n, dtype="BF16", shape=(8, 1, 4)) for i in (0, 1) for n in names[i]}
    conversions = SimpleNamespace(model=SimpleNamespace(dtype=torch.bfloat16))
    merged = {f"layers.{i}.conv1d.weight": [(n, "pattern") for n in names[i]] for i in (0, 1)}
    loading: Any = SimpleNamespace(conversions=conversions, merged=merged)

    def merged_by(by: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if by is conversions:
            raise ValueError("nothing to concatenate")
        return {"layers.0.conv1d.weight": torch.cat([*tensors.values()])}

    monkeypatch.setattr(transformers_merges, "merged_by", merged_by)
    plain: Any = "plain"
    told = list(transformers_merges.dense_merge_problems(loading, plain, specs, {}))
    assert [problem.name for problem in told] == [*merged]
    assert all("nothing to concatenate" in problem.text for problem in told)
    assert {problem.kind for problem in told} == {transformers_merges.KIND}
    formats: Any = dict.fromkeys(name.removesuffix(".weight") for name in specs)
    assert not list(transformers_merges.dense_merge_problems(loading, plain, specs, formats))


def test_a_model_without_a_class_is_no_failure(mixtures: dict[str, Blueprint]) -> None:
    headers = Headers.of(mixtures["mixtral"], load("w4a16"))
    other = replace(headers, settings={**headers.settings, "model_type": "unheard_of"})
    found = other.verdict()
    assert found.loads is None and not found.faults
    assert "unheard_of" in found.check()["detail"]


def test_engines_are_in_the_result(tmp_path: Path) -> None:
    model = tiny("qwen3_moe", tmp_path / "model", dtype=torch.bfloat16, **EXPERTS)
    saved = save(model, load("nvfp4a16"), tmp_path)
    out = FakeArtifact(path=tmp_path / "verify")
    out.path.mkdir()
    inputs = {**saved.inputs, "checkpoint": saved.artifact}
    run(Verify(VerifyConfig(scheme=load("nvfp4a16"))), inputs, out, tmp_path)
    engines = out.meta["result"]["engines"]
    assert engines["transformers"]["version"] == transformers.__version__
    assert engines["transformers"]["loads"] is False
    assert "compressed experts" in engines["transformers"]["why"][0]
    assert engines["vllm"]["loads"] is True and not engines["vllm"]["checked"]
