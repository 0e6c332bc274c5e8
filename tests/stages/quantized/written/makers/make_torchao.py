"""Checkpoints by torchao 0.18.0, saved as safetensors through transformers.

    pip install torchao==0.18.0 torch==2.13.0 transformers==5.17.0
    python make_torchao.py [NAME ...]

Decoded by the tensor subclasses' own `dequantize`. Its int4 wants a GPU: saving one fails here.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor


def configs() -> dict[str, Any]:
    from torchao.prototype.mx_formats import (
        MXDynamicActivationMXWeightConfig,
        NVFP4WeightOnlyConfig,
    )
    from torchao.quantization import (
        Float8WeightOnlyConfig,
        Int8WeightOnlyConfig,
    )

    return {
        "torchao_int8": Int8WeightOnlyConfig(version=2),
        "torchao_float8": Float8WeightOnlyConfig(version=2),
        "torchao_nvfp4": NVFP4WeightOnlyConfig(),
        "torchao_mxfp4": MXDynamicActivationMXWeightConfig(
            weight_dtype=torch.float4_e2m1fn_x2, activation_dtype=torch.float4_e2m1fn_x2
        ),
        "torchao_mxfp8": MXDynamicActivationMXWeightConfig(
            weight_dtype=torch.float8_e4m3fn, activation_dtype=torch.float8_e4m3fn
        ),
    }


def write(name: str, source: Path, folder: Path) -> dict[str, Tensor]:
    from transformers import AutoModelForCausalLM, TorchAoConfig

    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.bfloat16, quantization_config=TorchAoConfig(configs()[name])
    )
    model.save_pretrained(folder, safe_serialization=True)
    modules = {n: m.weight for n, m in model.named_modules() if n.endswith("_proj")}
    return {n: w.dequantize() for n, w in modules.items() if type(w) is not torch.nn.Parameter}


if __name__ == "__main__":
    for wanted in sys.argv[1:] or configs():
        with tempfile.TemporaryDirectory() as scratch:
            source = tiny.saved(Path(scratch, "source"))
            folder = Path(scratch, "out")
            weights = write(wanted, source, folder)
            tiny.keep(wanted, folder, weights, ("torchao", "torch", "transformers"))
