"""Tiny models as quantized checkpoints of every kind that is read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.quantized.catalog import opened
from stages.quantized.source import QuantizedSource
from stages.weights import open_checkpoint
from tests.stages.quantized import packers

Pack = Callable[[Tensor], packers.Packed]
DENSE = ("lm_head", "embed_tokens", "norm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """How one kind of checkpoint is written, in which dtype, and what its config says."""

    pack: Pack
    config: Mapping[str, Any]
    dtype: str = "float16"


def gptq(bits: int = 4, *, sym: bool = True, act: bool = False, version: int = 1) -> Kind:
    config = {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": sym, "desc_act": act}
    if version == 2:
        config["checkpoint_format"] = "gptq_v2"
    return Kind(
        pack=lambda w: packers.gptq(w, bits, 32, symmetric=sym, act=act, version=version),
        config=config,
    )


KINDS: dict[str, Kind] = {
    "gptq": gptq(),
    "gptq_asym": gptq(sym=False),
    "gptq_v2_asym": gptq(sym=False, version=2),
    "gptq_act": gptq(act=True),
    "gptq_2": gptq(2, sym=False),
    "gptq_3": gptq(3),
    "gptq_3_asym": gptq(3, sym=False),
    "gptq_8": gptq(8),
    "awq": Kind(
        pack=lambda w: packers.awq(w, 32),
        config={
            "quant_method": "awq",
            "bits": 4,
            "group_size": 32,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": ["lm_head"],
        },
    ),
    "fp8_block": Kind(
        pack=lambda w: packers.fp8_block(w, (48, 80)),
        config={
            "quant_method": "fp8",
            "fmt": "e4m3",
            "activation_scheme": "dynamic",
            "weight_block_size": [48, 80],
        },
        dtype="bfloat16",
    ),
    "fp8_block_128": Kind(
        pack=lambda w: packers.fp8_block(w, (128, 128)),
        config={
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
        },
        dtype="bfloat16",
    ),
    "fp8_tensor": Kind(
        pack=packers.fp8_tensor,
        config={"quant_method": "fp8", "activation_scheme": "dynamic"},
        dtype="bfloat16",
    ),
    "modelopt_nvfp4": Kind(
        pack=lambda w: packers.nvfp4(w, 1e-4, inputs=0.003),
        config={
            "quant_method": "modelopt",
            "quant_algo": "NVFP4",
            "ignore": ["lm_head"],
            "producer": {"name": "modelopt"},
        },
        dtype="bfloat16",
    ),
    "modelopt_fp8": Kind(
        pack=packers.fp8_tensor,
        config={"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": ["lm_head"]},
        dtype="bfloat16",
    ),
}


def quantize(model: Path, folder: Path, kind: Kind) -> dict[str, Tensor]:
    """Write `model` as a checkpoint of `kind`; returns what its tensors mean, in float32."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors*"))
    dtype: torch.dtype = getattr(torch, kind.dtype)
    meant: dict[str, Tensor] = {}
    stored: dict[str, Tensor] = {}
    for path in sorted(model.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            prefix, _, part = name.rpartition(".")
            if part == "weight" and not prefix.endswith(DENSE):
                parts, weight = kind.pack(tensor.float())
                stored |= {f"{prefix}.{own}": value for own, value in parts.items()}
                meant[name] = weight
            else:
                stored[name] = tensor.to(dtype)
                meant[name] = stored[name].float()
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"dtype": kind.dtype, "quantization_config": dict(kind.config)}
    (folder / "config.json").write_text(json.dumps(config))
    return meant


def reading(folder: Path) -> QuantizedSource:
    """The checkpoint in a folder, read as dense."""
    config = json.loads((folder / "config.json").read_text())
    source = open_checkpoint(folder)
    return opened(source, config["quantization_config"], config["dtype"])


def edit(
    folder: Path,
    change: Callable[[dict[str, Tensor]], object] | None = None,
    config: Callable[[dict[str, Any]], object] | None = None,
) -> None:
    """Change the tensors of a checkpoint, or what its quantization_config says."""
    if change is not None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if config is not None:
        said = json.loads((folder / "config.json").read_text())
        config(said["quantization_config"])
        (folder / "config.json").write_text(json.dumps(said))
