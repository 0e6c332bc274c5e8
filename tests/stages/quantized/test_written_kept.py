"""Checkpoints that other writers wrote are kept in another layout: the same float32 numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from pipeline.errors import UserError
from tests.benchmarks.random_llama import write_tokenizer
from tests.jobs import Job
from tests.loading import loaded_as
from tests.stages.quantized.test_keeping import SMALL, meanings
from tests.stages.quantized.test_written import source_of
from tests.stages.quantized.written.makers.tiny import DATA

ULP = 2.0**-22
"""Of two float32 products: a factor became a divisor."""
WHOLE = ("scheme.weights.strategy=channel", "scheme.weights.group_size=null")
KEPT: dict[str, tuple[float, str, tuple[str, ...]]] = {
    "auto_round_w4": (0.0, "w4a16", (SMALL,)),
    "auto_round_w4_asym": (0.0, "w4a16_asym", (SMALL,)),
    "auto_round_awq": (0.0, "w4a16_asym", (SMALL,)),
    "auto_round_ct_w4": (0.0, "w4a16", (SMALL,)),
    "auto_round_mxfp4": (0.0, "mxfp4a16", ()),
    "auto_round_mxfp8": (0.0, "mxfp8", ()),
    "auto_round_nvfp4": (0.0, "nvfp4a16", ()),
    "auto_round_fp8_static": (0.0, "fp8_dynamic", ()),
    "gptqmodel_4_asym": (0.0, "w4a16_asym", (SMALL,)),
    "gptqmodel_4_v2_asym": (0.0, "w4a16_asym", (SMALL,)),
    "gptqmodel_5": (0.0, "w4a16", (SMALL, "scheme.weights.num_bits=5")),
    "gptqmodel_7": (0.0, "w4a16", (SMALL, "scheme.weights.num_bits=7")),
    "modelopt_mxfp4": (0.0, "mxfp4a16", ()),
    "modelopt_mxfp8": (0.0, "mxfp8", ()),
    "torchao_float8": (0.0, "fp8_dynamic", ()),
    "torchao_mxfp4": (0.0, "mxfp4a16", ()),
    "torchao_nvfp4": (ULP, "nvfp4a16", ()),
}
FAST = ("auto_round_w4", "modelopt_mxfp4", "torchao_nvfp4")
NAMES = [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in sorted(KEPT)]


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_are_kept(tmp_path: Path, some_text: Path, name: str) -> None:
    bound, scheme, more = KEPT[name]
    model = tmp_path / "q"
    shutil.copytree(DATA / name, model)
    write_tokenizer(model)
    job = Job(folder=tmp_path, model=model, text=some_text)
    result = job.run("run", "modifier=keep", f"scheme={scheme}", *more)
    assert result["verify"]["ok"] is True
    source, checkpoint = source_of(name), tmp_path / "run" / "checkpoint"
    found = meanings(checkpoint)
    assert found.keys() == source.modules.keys()
    meant = {prefix: source.stored(prefix).weight() for prefix in found}
    for prefix, weight in found.items():
        error = (weight.float() - meant[prefix]).abs()
        assert bool((error <= bound * meant[prefix].abs()).all()), prefix
    if not scheme.startswith("w4a16"):
        return
    whole = CompressedTensorsConfig(run_compressed=False)
    loaded = AutoModelForCausalLM.from_pretrained(
        checkpoint, dtype=torch.float32, quantization_config=whole
    )
    for prefix, weight in meant.items():
        assert loaded_as(loaded.get_submodule(prefix).weight, weight), prefix


REFUSED = {
    "modelopt_w4a8_awq": ("w4a16", "o_proj.*: its inputs are multiplied by pre_quant_scale"),
    "bitsandbytes_nf4": ("mxfp4a16", "q_proj.*: the source has it as NF4, whose numbers no format"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_kept_is_named_before_the_run(
    tmp_path: Path, some_text: Path, name: str
) -> None:
    scheme, message = REFUSED[name]
    model = tmp_path / "q"
    shutil.copytree(DATA / name, model)
    write_tokenizer(model)
    job = Job(folder=tmp_path, model=model, text=some_text)
    with pytest.raises(UserError, match=message):
        job.run("run", "modifier=keep", f"scheme={scheme}")
