"""Checkpoints by auto-round 0.15.1, in its own format and as compressed-tensors.

    pip install auto-round==0.15.1 torch==2.13.0 transformers==5.17.0 compressed-tensors==0.19.0
    python make_auto_round.py [NAME ...]

Decoded by auto-round's own torch layers, loaded through transformers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

SMALL = {"group_size": 32}
MIXED = {
    "model.layers.0.mlp.down_proj": {"bits": 8},
    "model.layers.1.self_attn.q_proj": {"bits": 16},
    "model.layers.1.mlp.up_proj": {"bits": 2},
}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "auto_round_w4": ("W4A16", "auto_round", SMALL),
    "auto_round_w4_asym": ("W4A16", "auto_round", {**SMALL, "sym": False}),
    "auto_round_w3": ("W3A16", "auto_round", SMALL),
    "auto_round_w2_asym": ("W2A16", "auto_round", {**SMALL, "sym": False}),
    "auto_round_awq": ("W4A16", "auto_round:auto_awq", {**SMALL, "sym": False}),
    "auto_round_mixed": (
        "W4A16",
        "auto_round",
        {**SMALL, "layer_config": MIXED},
    ),
    "auto_round_mxfp4": ("MXFP4", "auto_round", {}),
    "auto_round_mxfp8": ("MXFP8", "auto_round", {}),
    "auto_round_nvfp4": ("NVFP4", "auto_round", {}),
    "auto_round_fp8_static": ("FP8_STATIC", "auto_round", {}),
    "auto_round_ct_w4": ("W4A16", "llm_compressor", SMALL),
    "auto_round_ct_nvfp4": ("NVFP4", "llm_compressor", {}),
}


def write(name: str, source: Path, folder: Path) -> Path:
    """Quantize; returns the folder that has config.json."""
    from auto_round import AutoRound

    scheme, form, options = CASES[name]
    letters = torch.randint(0, 256, (8, 32), generator=torch.Generator().manual_seed(1))
    maker = AutoRound(
        str(source),
        scheme=scheme,
        iters=0,
        disable_opt_rtn=True,
        device_map="cpu",
        enable_torch_compile=False,
        nsamples=8,
        seqlen=32,
        dataset=[row[None] for row in letters],
        **options,
    )
    maker.quantize_and_save(str(folder), format=form)
    return next(folder.rglob("config.json")).parent


def decoded(folder: Path) -> dict[str, Tensor]:
    """Every quantized weight as the layers that auto-round loads into a model decode it."""
    from transformers import AutoModelForCausalLM, AutoRoundConfig, CompressedTensorsConfig

    stated = json.loads((folder / "config.json").read_text())["quantization_config"]
    if stated["quant_method"] == "compressed-tensors":
        whole = CompressedTensorsConfig(run_compressed=False)
        loaded = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, quantization_config=whole
        )
        found = dict(loaded.named_modules())
        return {n: m.weight for n, m in found.items() if n.endswith("_proj")}
    if stated["packing_format"] == "auto_round:auto_awq":
        return decoded_awq(folder)
    loaded = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=AutoRoundConfig(backend="torch")
    )
    modules = {n: m for n, m in loaded.named_modules() if type(m) is not torch.nn.Linear}
    return {n: weight_of(m) for n, m in modules.items() if n.endswith("_proj")}


def decoded_awq(folder: Path) -> dict[str, Tensor]:
    """The layer that runs this on a CPU wants a compiled library; this is its plain function."""
    from auto_round.export.export_to_awq.utils import dequantize_gemm
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    modules = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    found = {
        n: [stored[f"{n}.{part}"] for part in ("qweight", "qzeros", "scales")] for n in modules
    }
    return {n: dequantize_gemm(*parts, 4, SMALL["group_size"]).T for n, parts in found.items()}


def weight_of(module: Any) -> Tensor:
    if hasattr(module, "dequant_weight_online"):
        return module.dequant_weight_online()
    columns = module.infeatures if hasattr(module, "infeatures") else module.in_features
    with torch.no_grad():
        return module(torch.eye(columns, dtype=torch.float16)).T


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            source = tiny.saved(Path(scratch, "source"))
            folder = write(wanted, source, Path(scratch, "out"))
            tiny.keep(wanted, folder, decoded(folder), ("auto-round", "torch", "transformers"))
