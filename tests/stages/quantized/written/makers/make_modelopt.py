"""Checkpoints by ModelOpt 0.47.0: MXFP4, MXFP8, and INT4 with AWQ (W4A16 and W4A8).

    pip install nvidia-modelopt==0.47.0 torch==2.13.0 transformers==5.17.0
    python make_modelopt.py [NAME ...]

MX weights are decoded by ModelOpt's own tensors (`qtensor`) from the files. It has no code that
reads its INT4 files, so these are what its exporter packed: the codes it handed to the packer times
their scales, and times pre_quant_scale. Its NVFP4 and its fake quantization of MX want CUDA.
"""

from __future__ import annotations

import copy
import hashlib
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
    "modelopt_int4_awq": "INT4_AWQ_CFG",
    "modelopt_w4a8_awq": "W4A8_AWQ_BETA_CFG",
}
WIDE = {"hidden": 128, "inner": 128}
"""ModelOpt's INT4 has groups of 128."""


def quantized(name: str) -> torch.nn.Module:
    import modelopt.torch.quantization as mtq

    letters = torch.randint(0, 256, (4, 64), generator=torch.Generator().manual_seed(1))
    model = tiny.model(torch.bfloat16, **(WIDE if "awq" in name else {}))
    run = (lambda made: made(letters)) if "awq" in name else None
    return mtq.quantize(model, copy.deepcopy(getattr(mtq, CASES[name])), run)


def digest(packed: Tensor) -> str:
    return hashlib.sha256(packed.contiguous().numpy().tobytes()).hexdigest()


def recording() -> dict[str, Tensor]:
    """What the exporter packs from now on, decoded, by the sha256 of the packed bytes."""
    from modelopt.torch.export import quant_utils

    pack, found = quant_utils.pack_int4_in_uint8, {}

    def packing(weight: Tensor, scale: Tensor, block: int) -> Tensor:
        packed = pack(weight, scale, block)
        spread = scale[:, torch.arange(weight.shape[1]) // block]
        codes = (weight / spread).round().clamp(-8, 7)
        found[digest(packed)] = codes.float() * spread.float()
        return packed

    quant_utils.pack_int4_in_uint8 = packing
    return found


def by_packer(folder: Path, packed: dict[str, Tensor]) -> dict[str, Tensor]:
    stored = load_file(folder / "model.safetensors")
    found: dict[str, Tensor] = {}
    for full, tensor in stored.items():
        prefix, _, part = full.rpartition(".")
        if part == "weight" and tensor.dtype == torch.uint8:
            scale = stored.get(f"{prefix}.pre_quant_scale")
            weight = packed[digest(tensor)]
            found[prefix] = weight if scale is None else weight * scale.float()
    return found


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

    packed = recording()
    for wanted in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            model = quantized(wanted)
            folder = Path(scratch, "out")
            with torch.inference_mode():
                export_hf_checkpoint(model, export_dir=folder)
            awq = "awq" in wanted
            weights = by_packer(folder, packed) if awq else by_tensors(folder, wanted)
            tiny.keep(wanted, folder, weights, ("nvidia-modelopt", "torch", "transformers"))
