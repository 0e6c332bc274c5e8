"""Checkpoints by GPTQModel 7.7.0: every width that it packs, both conventions of zero points.

    pip install gptqmodel==7.7.0    # or its source folder on PYTHONPATH: nothing of it is compiled
    GPTQMODEL_CPU_WORKERS=2 python make_gptqmodel.py [NAME ...]

With 2 cores its own number of workers is 1, and it raises.

Decoded by its own `dequantize_model`, which raises for a checkpoint whose `dynamic` gives modules
other bits.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import tiny
import torch
from safetensors.torch import load_file
from torch import Tensor

CASES: dict[str, dict[str, Any]] = {
    "gptqmodel_4_asym": {"bits": 4, "sym": False},
    "gptqmodel_4_v2_asym": {"bits": 4, "sym": False, "format": "gptq_v2"},
    "gptqmodel_4_act": {"bits": 4, "desc_act": True, "act_group_aware": False},
    "gptqmodel_5": {"bits": 5},
    "gptqmodel_7": {"bits": 7},
    "gptqmodel_8": {"bits": 8, "group_size": -1, "act_group_aware": False},
}


def write(name: str, source: Path, folder: Path) -> None:
    from gptqmodel import GPTQModel, QuantizeConfig

    options = {"group_size": 32, "desc_act": False, **CASES[name]}
    letters = torch.randint(0, 256, (8, 64), generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": r.tolist(), "attention_mask": [1] * len(r)} for r in letters]
    model = GPTQModel.load(str(source), QuantizeConfig(**options), device="cpu")
    model.quantize(rows, batch_size=2)
    model.save(str(folder))


def decoded(folder: Path, scratch: Path) -> dict[str, Tensor]:
    from gptqmodel.utils.model_dequant import dequantize_model

    modules = {n.removesuffix(".qweight") for n in load_file(folder / "model.safetensors")}
    dequantize_model(folder, scratch, target_dtype=torch.float32)
    tensors: dict[str, Tensor] = {}
    for path in scratch.glob("*.safetensors"):
        tensors |= load_file(path)
    found = {name.removesuffix(".weight"): tensor for name, tensor in tensors.items()}
    return {name: tensor for name, tensor in found.items() if name in modules}


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            source = tiny.saved(Path(scratch, "source"))
            folder = Path(scratch, "out")
            write(wanted, source, folder)
            weights = decoded(folder, Path(scratch, "dense"))
            tiny.keep(wanted, folder, weights, ("torch", "transformers"))
