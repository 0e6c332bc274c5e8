"""Checkpoints by bitsandbytes 0.50.2 through transformers: NF4 and FP4 (nested scales too), int8.

    pip install bitsandbytes==0.50.2 torch==2.13.0 transformers==5.17.0
    python make_bitsandbytes.py [NAME ...]

Decoded by its plain implementation: the CPU kernel behind `dequantize_4bit` takes rows that end
within a block for rows of whole blocks (findings/bitsandbytes_cpu_rows.sh), and ours have 96.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch
from torch import Tensor

CASES: dict[str, dict[str, Any]] = {
    "bitsandbytes_nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "bitsandbytes_nf4_nested": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "bitsandbytes_fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
    "bitsandbytes_int8": {"load_in_8bit": True},
}


def write(name: str, source: Path, folder: Path) -> dict[str, Tensor]:
    from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
    from bitsandbytes.functional import dequantize_blockwise, int8_vectorwise_dequant
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    model = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(**CASES[name]),
        device_map="cpu",
    )
    model.save_pretrained(folder, safe_serialization=True)
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not name.endswith("_proj"):
            continue
        if hasattr(weight, "quant_state") and weight.quant_state is not None:
            state, scale = weight.quant_state, weight.quant_state.absmax
            if state.nested:
                scale = dequantize_blockwise(scale, state.state2) + state.offset
            found[name] = _dequantize_4bit_compute(
                weight.data.reshape(-1),
                scale,
                state.code,
                state.blocksize,
                state.shape,
                state.dtype,
            )
        elif getattr(weight, "SCB", None) is not None:
            found[name] = int8_vectorwise_dequant(weight.data, weight.SCB)
    return found


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            source = tiny.saved(Path(scratch, "source"))
            folder = Path(scratch, "out")
            weights = write(wanted, source, folder)
            tiny.keep(wanted, folder, weights, ("bitsandbytes", "torch", "transformers"))
