"""mode=verify checkpoint=DIR: sound checkpoints pass, and each fault is found by its check."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from stages.verify.standalone import inspect
from tests.jobs import Job
from tests.loading import unread

Tensors = dict[str, torch.Tensor]
LAYER = "model.layers.1"


@pytest.fixture(scope="module")
def sound(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path
) -> dict[str, Path]:
    """Checkpoints of schemes, each in one file (as many who write them do)."""
    folder = tmp_path_factory.mktemp("sound")
    found = {}
    for scheme in ("nvfp4", "w4a16_asym", "fp8_dynamic"):
        job = Job(folder=folder, model=tiny_llama, text=some_text)
        small = ["scheme.weights.group_size=32"] if scheme == "w4a16_asym" else []
        job.run(scheme, f"scheme={scheme}", "modifier=rtn", *small)
        found[scheme] = one_file(folder / scheme / "checkpoint", folder / f"one-{scheme}")
    return found


def one_file(source: Path, target: Path) -> Path:
    target.mkdir()
    tensors: Tensors = {}
    for file in sorted(source.glob("*.safetensors")):
        tensors |= load_file(file)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(source / "config.json", target / "config.json")
    return target


def broken(
    sound: Path,
    tmp_path: Path,
    *,
    tensors: Callable[[Tensors], object] = lambda _: None,
    config: Callable[[dict[str, Any]], object] = lambda _: None,
) -> list[str]:
    """The checks that fail for a copy of `sound` with something changed."""
    folder = tmp_path / "broken"
    folder.mkdir()
    held = load_file(sound / "model.safetensors")
    tensors(held)
    save_file({n: t.contiguous() for n, t in held.items()}, folder / "model.safetensors")
    settings = json.loads((sound / "config.json").read_text())
    config(settings["quantization_config"])
    (folder / "config.json").write_text(json.dumps(settings))
    return failures(folder)


def failures(folder: Path) -> list[str]:
    report = inspect(folder, lambda *_: None)
    return [check["name"] for check in report["checks"] if check["ok"] is False]


@pytest.mark.parametrize("scheme", ["nvfp4", "w4a16_asym", "fp8_dynamic"])
def test_a_sound_checkpoint_passes_every_check(sound: dict[str, Path], scheme: str) -> None:
    report = inspect(sound[scheme], lambda *_: None)
    assert report["ok"] is True, report["checks"]
    not_passed = [check["name"] for check in report["checks"] if check["ok"] is not True]
    assert not_passed == ["files", *unread(scheme)]  # it has no provenance.json


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "tokenizer.json",
            '{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": 3}}',
        ),
        ("tokenizer.json", None),
        ("tokenizer_config.json", "[]"),
    ],
)
def test_a_tokenizer_that_nobody_can_load_is_found(
    sound: dict[str, Path], tmp_path: Path, name: str, content: str | None
) -> None:
    shutil.copytree(sound["fp8_dynamic"], tmp_path / "x")
    if content is None:
        os.mkfifo(tmp_path / "x" / name)
    else:
        (tmp_path / "x" / name).write_text(content)
    assert failures(tmp_path / "x") == ["tokenizer"]


TENSOR_FAULTS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "a missing scale": (
        lambda t: t.pop(f"{LAYER}.mlp.down_proj.weight_global_scale"),
        "parts of compressed modules",
    ),
    "a missing norm": (lambda t: t.pop(f"{LAYER}.input_layernorm.weight"), "tensors of the model"),
    "a stray tensor": (
        lambda t: t.update({f"{LAYER}.mlp.weight": torch.ones(2)}),
        "tensors of the model",
    ),
    "a stray part": (
        lambda t: t.update({f"{LAYER}.mlp.down_proj.weight_zero_point": torch.ones(2)}),
        "parts of compressed modules",
    ),
    "another shape": (
        lambda t: t.update({f"{LAYER}.mlp.up_proj.weight_scale": torch.ones(3, 3).to(t8)}),
        "parts of compressed modules",
    ),
    "another dtype": (
        lambda t: t.update({n: t[n].float() for n in [f"{LAYER}.self_attn.o_proj.weight_scale"]}),
        "parts of compressed modules",
    ),
    "a zero scale": (
        lambda t: t[f"{LAYER}.mlp.up_proj.weight_global_scale"].zero_(),
        "scales",
    ),
    "a scale that is not a number": (
        lambda t: t[f"{LAYER}.mlp.down_proj.weight_global_scale"].fill_(float("nan")),
        "scales",
    ),
    "partners with different global scales": (
        lambda t: t[f"{LAYER}.self_attn.k_proj.weight_global_scale"].mul_(2),
        "fused partners",
    ),
}
t8 = torch.float8_e4m3fn


@pytest.mark.parametrize("fault", TENSOR_FAULTS)
def test_faults_in_the_tensors_are_found(
    sound: dict[str, Path], tmp_path: Path, fault: str
) -> None:
    change, check = TENSOR_FAULTS[fault]
    assert check in broken(sound["nvfp4"], tmp_path, tensors=change)


def first(part: str, value: float) -> Callable[[Tensors], object]:
    """One entry of a tensor of LAYER's up_proj is set."""

    def change(tensors: Tensors) -> None:
        tensor = tensors[f"{LAYER}.mlp.up_proj.{part}"]
        flat = tensor.float().flatten()
        flat[0] = value
        tensors[f"{LAYER}.mlp.up_proj.{part}"] = flat.view(tensor.shape).to(tensor.dtype)

    return change


@pytest.mark.parametrize(
    ("scheme", "value", "told"),
    [
        ("w4a16_asym", -0.5, "some are negative"),
        ("fp8_dynamic", -0.5, "some are negative"),
        ("fp8_dynamic", 0.0, "some are 0"),
        ("nvfp4", 0.0, "some are 0"),
    ],
)
def test_what_is_unusual_but_sound_is_accepted_and_told(
    sound: dict[str, Path], tmp_path: Path, scheme: str, value: float, told: str
) -> None:
    assert broken(sound[scheme], tmp_path, tensors=first("weight_scale", value)) == []
    report = inspect(tmp_path / "broken", lambda *_: None)
    (check,) = (check for check in report["checks"] if check["name"] == "scales")
    assert check["ok"] is True
    assert check["detail"].startswith(f"unusual, but sound: {LAYER}.mlp.up_proj.weight_scale")
    assert told in check["detail"]


@pytest.mark.parametrize(
    ("part", "value"),
    [("weight_scale", -0.5), ("weight_global_scale", -1.0), ("input_global_scale", 0.0)],
)
def test_signs_that_readers_drop_and_divisors_of_0_stay_wrong(
    sound: dict[str, Path], tmp_path: Path, part: str, value: float
) -> None:
    assert "scales" in broken(sound["nvfp4"], tmp_path, tensors=first(part, value))


CONFIG_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "an ignore that matches nothing": (lambda c: c["ignore"].append("model.head"), "ignore"),
    "an ignore of a compressed module": (
        lambda c: c["ignore"].append(f"{LAYER}.mlp.up_proj"),
        "ignore",
    ),
    "a module without a group": (
        lambda c: c["config_groups"]["group_0"].update(targets=["re:.*mlp.*"]),
        "covered by the config",
    ),
    "a dense module with a group": (lambda c: c["ignore"].clear(), "covered by the config"),
    "another method": (lambda c: c.update(quant_method="awq"), "config"),
    "a field of another version": (lambda c: c.update(rotation={"seed": 1}), "config"),
    "a format of another version": (lambda c: c.update(format="int3-quantized"), "config"),
    "sparse weights": (
        lambda c: c.update(sparsity_config={"format": "sparse-24-bitmask"}),
        "config",
    ),
    "another format": (
        lambda c: c["config_groups"]["group_0"].update(format="mxfp4-pack-quantized"),
        "parts of compressed modules",
    ),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_faults_in_the_config_are_found(sound: dict[str, Path], tmp_path: Path, fault: str) -> None:
    change, check = CONFIG_FAULTS[fault]
    assert check in broken(sound["nvfp4"], tmp_path, config=change)


def test_files_that_do_not_match_the_index_are_found(
    sound: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sound["fp8_dynamic"], tmp_path / "indexed")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "model-00001-of-00001.safetensors")}
    index["weight_map"].pop("model.norm.weight")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "index" in failures(folder)


def test_a_folder_that_is_no_checkpoint_is_one_clear_failure(tmp_path: Path) -> None:
    report = inspect(tmp_path, lambda *_: None)
    assert report["ok"] is False
    assert [check["name"] for check in report["checks"]] == ["readable"]
