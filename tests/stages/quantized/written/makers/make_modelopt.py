"""Checkpoints by ModelOpt 0.47.0: MXFP4 and MXFP8.

    pip install nvidia-modelopt==0.47.0 torch==2.13.0 transformers==5.17.0
    python make_modelopt.py [NAME ...]

Decoded by ModelOpt's own tensors (`qtensor`) from the files. Its NVFP4 and its fake quantization of
MX want CUDA.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

CASES: dict[str, str] = {
    "modelopt_mxfp4": "MXFP4_DEFAULT_CFG",
    "modelopt_mxfp8": "MXFP8_DEFAULT_CFG",
}


def quantized(name: str) -> torch.nn.Module:
    import modelopt.torch.quantization as mtq

    return mtq.quantize(tiny.model(torch.bfloat16), copy.deepcopy(getattr(mtq, CASES[name])), None)


def by_tensors(folder: Path, name: str) -> dict[str, Tensor]:
    from modelopt.torch.quantization.qtensor import MXFP4QTensor, MXFP8QTensor

    kind: Any = MXFP4QTensor if "mxfp4" in name else MXFP8QTensor
    stored = load_file(folder / "model.safetensors")
    found: dict[str, Tensor] = {}
    for full in stored:
        prefix, _, part = full.rpartition(".")
        if part == "weight_scale":
            codes, scale = stored[f"{prefix}.weight"], stored[full]
            shape = (codes.shape[0], codes.shape[1] * (2 if "mxfp4" in name else 1))
            made = kind(torch.Size(shape), torch.float32, codes)
            options = {"scale": scale, "block_sizes": {-1: 32}}
            found[prefix] = made.dequantize(torch.float32, **options)
    return found


if __name__ == "__main__":
    from modelopt.torch.export import export_hf_checkpoint

    for wanted in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            model = quantized(wanted)
            folder = Path(scratch, "out")
            with torch.inference_mode():
                export_hf_checkpoint(model, export_dir=folder)
            weights = by_tensors(folder, wanted)
            tiny.keep(wanted, folder, weights, ("nvidia-modelopt", "torch", "transformers"))
