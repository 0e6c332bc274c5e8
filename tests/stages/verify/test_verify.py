"""verify passes what save wrote, and finds every way in which it can be broken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import StageFailed
from stages.compress.modifiers import Gptq, SmoothQuant
from stages.verify.stage import Verify, VerifyConfig, VerifyOptions
from tests.loading import unread
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.tiny import tiny
from tests.stages.save.checkpoints import EXPERTS, WIDE, Saved, run, save
from tests.stages.schemes.presets import QUANTIZED, load

INDEX = "model.safetensors.index.json"
Q = "model.layers.0.self_attn.q_proj"
NORM = "model.layers.1.input_layernorm.weight"
Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def w4a16(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("w4a16")
    model = tiny("llama", folder / "model", dtype=torch.bfloat16, **WIDE)
    return save(model, load("w4a16"), folder, max_shard_bytes=None)


@pytest.fixture(scope="module")
def nvfp4(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    folder = tmp_path_factory.mktemp("nvfp4")
    model = tiny("qwen3", folder / "model", dtype=torch.bfloat16, **WIDE)
    return save(model, load("nvfp4"), folder, max_shard_bytes=None)


def verify(saved: Saved, checkpoint: Path, **options: Any) -> dict[str, Any]:
    """verify.json; raises StageFailed where a check fails."""
    out = FakeArtifact(path=checkpoint.parent / "verify")
    out.path.mkdir(exist_ok=True)
    inputs = {**saved.inputs, "checkpoint": FakeArtifact(path=checkpoint.parent)}
    run(Verify(VerifyConfig(verify=VerifyOptions(**options))), inputs, out, checkpoint.parent)
    report: dict[str, Any] = out.json("verify.json")
    assert out.meta["result"]["verify"] == report
    return report


def copy(saved: Saved, folder: Path) -> Path:
    """The checkpoint with files of its own, to break."""
    shutil.copytree(saved.folder, folder / "checkpoint")
    return folder / "checkpoint"


def edit(checkpoint: Path, tensor: str, change: Callable[[Tensors], None]) -> None:
    """Change the file that holds a tensor, and the index with it."""
    index = json.loads((checkpoint / INDEX).read_text())
    file = index["weight_map"][tensor]
    tensors = load_file(checkpoint / file)
    before = sum(t.nbytes for t in tensors.values())
    change(tensors)
    save_file(tensors, checkpoint / file, metadata={"format": "pt"})
    kept = {name: home for name, home in index["weight_map"].items() if home != file}
    index["weight_map"] = kept | dict.fromkeys(tensors, file)
    index["metadata"]["total_size"] += sum(t.nbytes for t in tensors.values()) - before
    (checkpoint / INDEX).write_text(json.dumps(index))


def settings(checkpoint: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change config.json."""
    config = json.loads((checkpoint / "config.json").read_text())
    change(config)
    (checkpoint / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_scheme_passes(tmp_path: Path, name: str) -> None:
    model = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, **WIDE)
    saved = save(model, load(name), tmp_path)
    report = verify(saved, copy(saved, tmp_path / "copy"))
    assert report["ok"]
    assert verify(saved, tmp_path / "copy" / "checkpoint", unpack="codes") == report
    passed = {check["name"] for check in report["checks"] if check["ok"]}
    assert {"names", "shapes and dtypes", "scales", "weights", "unchanged tensors"} <= passed
    open_ = [check["name"] for check in report["checks"] if check["ok"] is None]
    assert open_ == [*unread(name), "engines"]


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "gemma2"])
def test_experts_and_transforms_pass(tmp_path: Path, family: str) -> None:
    wide = EXPERTS if family == "qwen3_moe" else {**WIDE, "num_hidden_layers": 4}
    model = tiny(family, tmp_path / "model", dtype=torch.bfloat16, **wide)
    saved = save(model, load("w8a8"), tmp_path, (SmoothQuant(pairs=["norm", "linear"]), Gptq()))
    assert verify(saved, copy(saved, tmp_path / "copy"))["ok"]


def test_an_uncompressed_checkpoint_passes(tmp_path: Path) -> None:
    model = tiny("qwen3", tmp_path / "model", dtype=torch.bfloat16, **WIDE)
    saved = save(model, load("none"), tmp_path)
    assert verify(saved, copy(saved, tmp_path / "copy"))["ok"]


def test_a_check_that_was_not_run_says_so(tmp_path: Path, w4a16: Saved) -> None:
    report = verify(w4a16, copy(w4a16, tmp_path), original=False)
    left = {check["name"]: check for check in report["checks"] if check["ok"] is None}
    assert "verify.original is false" in left["unchanged tensors"]["detail"]


def drop(name: str) -> Callable[[Path], None]:
    def change(tensors: Tensors) -> None:
        del tensors[name]

    return lambda folder: edit(folder, name, change)


def put(name: str, value: Callable[[Tensor], Tensor], to: str | None = None) -> Callable[..., None]:
    def change(tensors: Tensors) -> None:
        tensors[to or name] = value(tensors[name].clone()).contiguous()

    return lambda folder: edit(folder, name, change)


def entry(name: str, value: float) -> Callable[..., None]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(-1)[1 if tensor.numel() > 1 else 0] = value
        return tensor

    return put(name, change)


def flip(name: str) -> Callable[..., None]:
    def change(tensor: Tensor) -> Tensor:
        tensor.view(torch.uint8).view(-1)[5] ^= 1
        return tensor

    return put(name, change)


def quantization(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda folder: settings(folder, lambda c: change(c["quantization_config"]) and None)


def index_entry(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def broken(folder: Path) -> None:
        index = json.loads((folder / INDEX).read_text())
        change(index)
        (folder / INDEX).write_text(json.dumps(index))

    return broken


BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "compressed part gone": (drop(f"{Q}.weight_scale"), "names", f"{Q}.weight"),
    "dense tensor gone": (drop(NORM), "names", f"{NORM} is missing"),
    "head gone": (drop("lm_head.weight"), "tied weights", "lm_head.weight"),
    "tensor too many": (
        put(NORM, lambda t: t, to="model.layers.1.extra.weight"),
        "names",
        "model.layers.1.extra.weight belongs to nothing",
    ),
    "other dtype": (put(NORM, Tensor.float), "shapes and dtypes", f"{NORM} is F32"),
    "other shape": (
        put(f"{Q}.weight_scale", lambda t: t[:64]),
        "shapes and dtypes",
        "[64, 1] instead of BF16 [128, 1]",
    ),
    "scale zero": (entry(f"{Q}.weight_scale", 0), "scales", "not positive"),
    "scale negative": (entry(f"{Q}.weight_scale", -1), "scales", "not positive"),
    "scale not finite": (entry(f"{Q}.weight_scale", float("nan")), "scales", "non-finite"),
    "one bit of a code": (flip(f"{Q}.weight_packed"), "weights", f"{Q} unpacks to another"),
    "two rows swapped": (
        put(f"{Q}.weight_packed", lambda t: t[torch.tensor([1, 0, *range(2, 128)])]),
        "weights",
        Q,
    ),
    "one bit of a dense tensor": (flip(NORM), "unchanged tensors", f"{NORM} differs"),
    "tensor not in the index": (
        index_entry(lambda index: index["weight_map"].pop(NORM)),
        "index",
        f"{NORM} is in",
    ),
    "wrong total": (
        index_entry(lambda index: index["metadata"].update(total_size=3)),
        "index",
        "total_size is 3",
    ),
    "index names another file": (
        index_entry(lambda i: i["weight_map"].update({NORM: i["weight_map"]["lm_head.weight"]})),
        "readable",
        NORM,
    ),
    "file gone": (
        lambda folder: (folder / "model-00002-of-00003.safetensors").unlink(),
        "readable",
        "model-00002",
    ),
    "file cut off": (
        lambda folder: (folder / "model-00002-of-00003.safetensors").write_bytes(b"12345678901"),
        "readable",
        "model-00002",
    ),
    "no index": (lambda folder: (folder / INDEX).unlink(), "readable", "no index"),
    "field of config lost": (
        lambda folder: settings(folder, lambda c: c.pop("rms_norm_eps") and None),
        "config",
        "rms_norm_eps is None",
    ),
    "no quantization_config": (
        lambda folder: settings(folder, lambda c: c.pop("quantization_config") and None),
        "config",
        "no quantization_config",
    ),
    "config that is no config": (
        quantization(lambda q: q["config_groups"]["group_0"].update(weights={"num_bits": "x"})),
        "readable",
        "not a valid one",
    ),
    "group that covers nothing": (
        quantization(lambda q: q["config_groups"]["group_0"].update(targets=["re:.*q_proj"])),
        "readable",
        "no group of quantization_config",
    ),
    "other numbers in config": (
        quantization(lambda q: q["config_groups"]["group_0"]["weights"].update(group_size=64)),
        "shapes and dtypes",
        "weight_scale",
    ),
    "ignore forgets a module": (quantization(lambda q: q["ignore"].clear()), "ignore", "lm_head"),
    "ignore names a compressed module": (
        quantization(lambda q: q["ignore"].append(Q)),
        "ignore",
        f"{Q} is in ignore",
    ),
    "config that is no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        "readable",
        "config.json",
    ),
    "recipe lost": (lambda folder: (folder / "recipe.yaml").unlink(), "small files", "recipe.yaml"),
}


@pytest.mark.parametrize("unpack", ["all", "codes"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_found(tmp_path: Path, w4a16: Saved, how: str, unpack: str) -> None:
    breaks, check, says = BROKEN[how]
    checkpoint = copy(w4a16, tmp_path)
    breaks(checkpoint)
    with pytest.raises(StageFailed) as error:
        verify(w4a16, checkpoint, unpack=unpack)
    lines = [line for line in str(error.value).splitlines() if line.startswith(f"    {check}: ")]
    assert lines and says in str(error.value)


@pytest.mark.parametrize(
    ("part", "value"),
    [("weight_global_scale", 0), ("input_global_scale", float("inf")), ("weight_scale", -1)],
)
def test_a_broken_nvfp4_scale_is_found(
    tmp_path: Path, nvfp4: Saved, part: str, value: float
) -> None:
    checkpoint = copy(nvfp4, tmp_path)
    entry(f"{Q}.{part}", value)(checkpoint)
    with pytest.raises(StageFailed, match=f"scales: {Q}.{part}"):
        verify(nvfp4, checkpoint)


def test_loops_of_our_own_read_what_was_not_calibrated_unless_all_is_asked_for(
    tmp_path: Path, w4a16: Saved, nvfp4: Saved, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def told(*given: object) -> None:
        asked.append("codes")

    monkeypatch.setattr("stages.verify.tensor_checks.stored_sums", told)
    checkpoint, calibrated = copy(w4a16, tmp_path), copy(nvfp4, tmp_path / "calibrated")
    assert verify(w4a16, checkpoint, unpack="all")["ok"] and not asked
    assert verify(nvfp4, calibrated)["ok"] and not asked
    assert verify(w4a16, checkpoint)["ok"] and len(asked) == 14
    assert verify(nvfp4, calibrated, unpack="codes")["ok"] and len(asked) == 28


@pytest.mark.parametrize("name", ["fp8_dynamic", "w4a16", "nvfp4"])
def test_large_weights_are_read_some_rows_at_a_time(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, **WIDE)
    saved = save(model, load(name), tmp_path, max_shard_bytes=None)
    monkeypatch.setattr("stages.weights.row_bands.WIDE", 0)
    monkeypatch.setattr("stages.weights.row_bands.BAND", 3000)
    checkpoint = copy(saved, tmp_path / "copy")
    assert verify(saved, checkpoint, unpack="codes")["ok"]
    main = f"{Q}.weight" if name == "fp8_dynamic" else f"{Q}.weight_packed"
    flip(main)(checkpoint)
    with pytest.raises(StageFailed, match=f"{Q} unpacks to another"):
        verify(saved, checkpoint, unpack="codes")


def test_an_untied_head_is_found(tmp_path: Path) -> None:
    model = tiny("qwen3", tmp_path / "model", dtype=torch.bfloat16, **WIDE)
    saved = save(model, load("w4a16"), tmp_path, max_shard_bytes=None)
    assert "lm_head.weight" not in json.loads((saved.folder / INDEX).read_text())["weight_map"]
    checkpoint = copy(saved, tmp_path / "copy")
    settings(checkpoint, lambda c: c.update(tie_word_embeddings=False))
    with pytest.raises(StageFailed, match="tied weights: tie_word_embeddings is false"):
        verify(saved, checkpoint)
