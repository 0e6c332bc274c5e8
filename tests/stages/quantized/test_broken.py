"""Quantized checkpoints that cannot be read: one clear error, said when the model is looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from stages.load.local import LocalModel
from tests.stages.quantized.checkpoints import KINDS, edit, quantize, reading

Q = "model.layers.1.self_attn.q_proj"
Tensors = dict[str, Tensor]


def without(part: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(f"{Q}.{part}")


def replaced(part: str, tensor: Tensor) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({f"{Q}.{part}": tensor})


BROKEN: dict[str, tuple[str, Callable[[Tensors], object], str]] = {
    "gptq scales": ("gptq", without("scales"), f"{Q} .*has no scales"),
    "gptq zeros": ("gptq", without("qzeros"), f"{Q} .*has no qzeros"),
    "gptq shape": ("gptq", replaced("scales", torch.ones(3, 128)), r"scales is \[3, 128\], not"),
    "gptq dtype": ("gptq", replaced("qweight", torch.ones(16, 128)), "not an int32 matrix"),
    "gptq twice": ("gptq", replaced("weight", torch.ones(128, 128)), "both dense and quantized"),
    "awq scales": ("awq", without("scales"), f"{Q} .*has no scales"),
    "awq zeros": ("awq", without("qzeros"), f"{Q} .*has no qzeros"),
    "awq shape": ("awq", replaced("qweight", torch.ones(4, 4).int()), r"qweight is \[4, 4\], not"),
    "fp8 scale": ("fp8_block", without("weight_scale_inv"), f"{Q} is stored in FP8, but has no"),
    "fp8 weight": ("fp8_block", without("weight"), "weight_scale_inv belongs to no weight"),
    "fp8 shape": ("fp8_block", replaced("weight_scale_inv", torch.ones(1, 2)), r"not \[3, 2\]"),
    "nvfp4 scale": ("modelopt_nvfp4", without("weight_scale"), "has no weight_scale"),
    "nvfp4 outer": ("modelopt_nvfp4", without("weight_scale_2"), "has no weight_scale_2"),
    "nvfp4 weight": ("modelopt_nvfp4", without("weight"), "has no weight"),
    "nvfp4 dense": (
        "modelopt_nvfp4",
        replaced("weight", torch.ones(128, 128)),
        "scale of a weight of dtype F32, not U8",
    ),
    "modelopt fp8": ("modelopt_fp8", without("weight_scale"), "has no weight_scale"),
}


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_broken_tensors_are_one_problem_of_the_model(
    tmp_path: Path, tiny_llama: Path, name: str
) -> None:
    kind, change, message = BROKEN[name]
    quantize(tiny_llama, tmp_path / "q", KINDS[kind])
    edit(tmp_path / "q", change)
    (problem,) = LocalModel(path=str(tmp_path / "q")).look(mode="plan").problems
    with pytest.raises(UserError, match=message):
        raise problem


UNREAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "method": ("gptq", {"quant_method": "exl2"}, "already quantized, by 'exl2'"),
    "gptq bits": ("gptq", {"bits": 9}, "(?s)bits is 9, which is not read.*2, 3, 4, 5, 6, 7, 8"),
    "gptq planes": ("gptq", {"bits": 5}, r"scales is \[8, 128\], not \[7, "),
    "gptq layout": ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format is 'marlin'"),
    "gptq dynamic": ("gptq", {"dynamic": {"+:.*down": {"bits": 8}}}, r"down_proj.*, not \["),
    "gptq rule": ("gptq", {"dynamic": {"+:(": {"bits": 8}}}, "which is no regular expression"),
    "gptq rules": ("gptq", {"dynamic": {".*down": [8]}}, "is no JSON object"),
    "group size": ("gptq", {"group_size": 0}, "group_size is 0"),
    "awq version": ("awq", {"version": "GEMV"}, "version is 'gemv'"),
    "awq dense": ("awq", {"modules_to_not_convert": ["q_proj"]}, "names 'q_proj' as dense"),
    "fp8 block": ("fp8_block", {"weight_block_size": [128]}, r"weight_block_size is \[128\]"),
    "fp8 dense": ("fp8_block", {"modules_to_not_convert": [Q]}, f"{Q} is stored quantized, but"),
    "modelopt": ("modelopt_nvfp4", {"quant_algo": "NVFP4_SVD"}, "quant_algo is 'NVFP4_SVD'"),
    "auto-round": ("gptq", {"quant_method": "auto-round", "packing_format": "x"}, "format is 'x'"),
    "modelopt dense": ("modelopt_nvfp4", {"ignore": ["model.layers.1*"]}, "exclude_modules has"),
}


@pytest.mark.parametrize("name", sorted(UNREAD))
def test_what_is_not_read_is_one_problem_of_the_model(
    tmp_path: Path, tiny_llama: Path, name: str
) -> None:
    kind, said, message = UNREAD[name]
    quantize(tiny_llama, tmp_path / "q", KINDS[kind])
    edit(tmp_path / "q", config=lambda config: config.update(said))
    (problem,) = LocalModel(path=str(tmp_path / "q")).look(mode="plan").problems
    with pytest.raises(UserError, match=message):
        raise problem


def test_a_symmetric_checkpoint_with_zero_points_is_refused(
    tmp_path: Path, tiny_llama: Path
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["gptq_asym"])
    edit(tmp_path / "q", config=lambda config: config.update(sym=True))
    with pytest.raises(UserError, match=f"says sym, but {Q} has zero points"):
        reading(tmp_path / "q").read([f"{Q}.weight"])


def test_columns_of_groups_that_are_not_there_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["gptq"])
    edit(tmp_path / "q", replaced("g_idx", torch.full((128,), 4).int()))
    with pytest.raises(UserError, match="g_idx names groups that are not there"):
        reading(tmp_path / "q").read([f"{Q}.weight"])


def test_a_part_of_a_module_name_is_not_the_module(tmp_path: Path, tiny_llama: Path) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS["awq"])
    edit(tmp_path / "q", config=lambda config: config.update(modules_to_not_convert=["gate"]))
    assert "model.layers.0.mlp.gate_proj.weight" in reading(tmp_path / "q").specs()


@pytest.mark.parametrize("kind", ["gptq", "fp8_block", "modelopt_nvfp4"])
def test_codes_without_a_word_about_them_are_refused(
    tmp_path: Path, tiny_llama: Path, kind: str
) -> None:
    quantize(tiny_llama, tmp_path / "q", KINDS[kind])
    path = tmp_path / "q" / "config.json"
    config = json.loads(path.read_text())
    del config["quantization_config"]
    path.write_text(json.dumps(config))
    (problem,) = LocalModel(path=str(tmp_path / "q")).look(mode="plan").problems
    with pytest.raises(UserError, match=r"is stored quantized .*but config.json has no"):
        raise problem
