"""From disk to disk by tensor names: as the calibrated graph does, and without a model class."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import UserError
from tests.jobs import Job, built
from tests.stages.schemes.presets import NAMES

SCHEMES = ["fp8_dynamic", "w4a16", "w8a16", "w4a16_asym", "nvfp4a16", "mxfp4", "mxfp6a16"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk(Job):
    """Runs with `graph=data_free`, which is told of no dataset."""

    def overrides(self, *more: str) -> list[str]:
        return [
            "device=cpu",
            "runner.threads=1",
            f"store.dir={self.folder / 'store'}",
            "model=local",
            f"model.path={self.model}",
            "graph=data_free",
            "modifier=rtn",
            "scheme.weights.group_size=32",
            "eval=none",
            *more,
        ]


def disk(folder: Path, model: Path) -> Disk:
    return Disk(folder=folder, model=model, text=folder)


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted(checkpoint.glob("*.safetensors")):
        found |= load_file(path)
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        tensor.dtype == other[name].dtype
        and torch.equal(tensor.view(torch.uint8), other[name].view(torch.uint8))
        for name, tensor in one.items()
    )


def odd_model(tiny_llama: Path, folder: Path) -> Path:
    """A model that transformers does not know, with its own code and more stacks than one."""
    model = shutil.copytree(tiny_llama, folder / "odd")
    config = json.loads((model / "config.json").read_text())
    config |= {
        "model_type": "oddity",
        "architectures": ["OddForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_odd.OddForCausalLM"},
    }
    (model / "config.json").write_text(json.dumps(config))
    draw = torch.Generator().manual_seed(3)
    extra = {
        f"{stack}.{index}.{leaf}.weight": torch.randn(64, 64, generator=draw).bfloat16()
        for stack in ("vision.blocks", "mtp.layers")
        for index in range(2)
        for leaf in ("fc1", "w1", "w3")
    }
    extra["mtp.layers.0.experts.down_proj"] = torch.randn(2, 8, 8, generator=draw).bfloat16()
    extra["vision.patch_embed.proj.weight"] = torch.randn(8, 3, 2, 2, generator=draw).bfloat16()
    add_shard(model, "model-extra.safetensors", extra)
    return model


def add_shard(model: Path, name: str, found: dict[str, torch.Tensor]) -> None:
    save_file(found, model / name, metadata={"format": "pt"})
    path = model / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= dict.fromkeys(found, name)
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("scheme", [name for name in SCHEMES if name in NAMES])
def test_a_known_model_gets_the_bytes_of_the_calibrated_graph(
    scheme: str, tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    calibrated = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    choice = (f"scheme={scheme}", "modifier=rtn")
    assert calibrated.run("class", *choice)["verify"]["ok"] is True
    result = disk(tmp_path, tiny_llama).run("names", *choice)
    assert result["verify"]["ok"] is True
    one, other = (tmp_path / name / "checkpoint" for name in ("class", "names"))
    assert same(tensors(one), tensors(other))
    assert (one / "config.json").read_bytes() == (other / "config.json").read_bytes()
    assert (one / "recipe.yaml").read_bytes() == (other / "recipe.yaml").read_bytes()


def test_partners_in_three_shards_share_their_global_scale(
    tmp_path: Path, tiny_llama: Path
) -> None:
    torn = shutil.copytree(tiny_llama, tmp_path / "torn")
    shard = torn / "model-layer-001.safetensors"
    layer = load_file(shard)
    layer["model.layers.1.self_attn.v_proj.weight"] *= 8  # so that the partners differ
    save_file(layer, shard)
    whole = shutil.copytree(torn, tmp_path / "whole")
    rest = dict(layer)
    for leaf in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.1.self_attn.{leaf}.weight"
        add_shard(torn, f"model-{leaf}.safetensors", {name: rest.pop(name)})
    save_file(rest, shard)
    found = {}
    for model in (torn, whole):
        disk(tmp_path, model).run(f"run-{model.name}", "scheme=nvfp4a16")
        found[model.name] = tensors(tmp_path / f"run-{model.name}" / "checkpoint")
    assert same(found["torn"], found["whole"])
    scales = {
        float(found["torn"][f"model.layers.1.self_attn.{leaf}.weight_global_scale"])
        for leaf in ("q_proj", "k_proj", "v_proj")
    }
    largest = float(layer["model.layers.1.self_attn.v_proj.weight"].abs().max())
    assert len(scales) == 1 and scales.pop() == pytest.approx(448.0 * 6.0 / largest, rel=2**-8)


def test_transformers_is_asked_on_request_only(tmp_path: Path, tiny_llama: Path) -> None:
    job, name = disk(tmp_path, tiny_llama), "loading in transformers"
    plain = job.run("plain", "scheme=fp8_dynamic")
    assert name not in {check["name"] for check in plain["verify"]["checks"]}
    assert "transformers" not in plain["engines"]
    asked = job.run("asked", "scheme=fp8_dynamic", "verify.loader=transformers")
    assert built(asked) == {"verify"}
    assert [check["ok"] for check in asked["verify"]["checks"] if check["name"] == name] == [True]
    assert asked["engines"]["transformers"]["loads"] is True


def test_a_model_without_a_class_goes_from_disk_to_disk(tmp_path: Path, tiny_llama: Path) -> None:
    model = odd_model(tiny_llama, tmp_path)
    (model / "modeling_odd.py").write_text("raise SystemExit\n")
    job = disk(tmp_path, model)
    result = job.run("run", "scheme=fp8_dynamic")
    assert result["verify"]["ok"] is True
    told = " ".join(result["warnings"])
    assert "mtp.layers.*.experts.down_proj" in told and "(modeling_odd.py): it is copied" in told
    code = tmp_path / "run" / "checkpoint" / "modeling_odd.py"
    assert code.read_text() == "raise SystemExit\n"
    before, after = tensors(model), tensors(tmp_path / "run" / "checkpoint")
    assert after["vision.blocks.1.fc1.weight"].dtype == torch.float8_e4m3fn
    assert after["mtp.layers.0.w1.weight"].dtype == torch.float8_e4m3fn
    for name in ("mtp.layers.0.experts.down_proj", "vision.patch_embed.proj.weight"):
        assert torch.equal(after[name], before[name])
    config = json.loads((tmp_path / "run" / "checkpoint" / "config.json").read_text())
    assert config["model_type"] == "oddity"
    assert config["quantization_config"]["ignore"] == ["lm_head"]
    assert built(job.run("again", "scheme=fp8_dynamic")) == set()


def test_no_large_library_but_torch_is_imported(tmp_path: Path, tiny_llama: Path) -> None:
    words = disk(tmp_path, tiny_llama).overrides("scheme=w4a16")
    code = (
        "import atexit, sys\n"
        "large = ('compressed_tensors', 'transformers')\n"
        "atexit.register(lambda: print([x for x in large if x in sys.modules]))\n"
        "from pipeline.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words, f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "11 of 11 passed" in done.stdout


def test_compressed_tensors_unpacks_all_if_asked_to(tmp_path: Path, tiny_llama: Path) -> None:
    job = disk(tmp_path, tiny_llama)
    job.run("codes", "scheme=w4a16")
    again = job.run("all", "scheme=w4a16", "verify.unpack=all")
    assert built(again) == {"verify"} and again["verify"]["ok"] is True


def test_the_plan_lists_units_and_builds_nothing(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = disk(tmp_path, odd_model(tiny_llama, tmp_path))
    assert job.plan("scheme=w4a16") == 0
    shown = capsys.readouterr().out
    assert "compress[0-7] " in shown and "compress[8]" not in shown
    assert not any((tmp_path / "store").glob("??/*"))


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("modifier=gptq",), ["modifier gptq", "modifier=rtn", "graph=calibrated"]),
        (("scheme=fp8",), ["calibrated input_activations of scheme", "fp8_dynamic"]),
        (("scheme=fp8_dynamic", "eval=standard"), ["evaluating need", "eval=none"]),
    ],
)
def test_what_needs_data_or_a_class_is_one_clear_problem(
    more: tuple[str, ...], named: list[str], tmp_path: Path, tiny_llama: Path
) -> None:
    with pytest.raises(UserError) as caught:
        disk(tmp_path, tiny_llama).run("run", *more)
    text = str(caught.value)
    assert all(word in text for word in named)
    assert len(text.splitlines()) == 2


def test_the_calibrated_graph_falls_back_to_an_outline_and_says_so(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    model = odd_model(tiny_llama, tmp_path)
    job = Job(folder=tmp_path, model=model, text=some_text)
    result = job.run("class", "scheme=fp8_dynamic", "modifier=rtn")
    assert result["verify"]["ok"] is True
    assert any("'oddity', which transformers does not know" in x for x in result["warnings"])
    with pytest.raises(UserError, match=r"needed for modifier gptq, but config\.json has"):
        job.run("gptq", "modifier=gptq")
    with pytest.raises(UserError, match=r"need the model's class, but config\.json has"):
        job.run("eval", "scheme=fp8_dynamic", "modifier=rtn", "eval=standard")


def test_a_damaged_model_type_says_what_may_be_meant(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    model: Any = shutil.copytree(tiny_llama, tmp_path / "typo")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "lama"}))
    result = Job(folder=tmp_path, model=model, text=some_text).run(
        "run", "scheme=fp8_dynamic", "modifier=rtn"
    )
    assert any("did you mean llama" in text for text in result["warnings"])
