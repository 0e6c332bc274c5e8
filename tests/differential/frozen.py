"""Digests of what llm-compressor wrote for the tiny models, small enough to keep.

tests/differential/digests.json: family -> case -> "all" (every tensor) and the tensors of the
first layer, 12 hexadecimal digits of a sha256 each. Written by the differential test with
PRESSWORK_WRITE_DIGESTS=1, from the peer's files; read by test_frozen.py, which needs no peer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

FILE = Path(__file__).with_name("digests.json")
KEPT = ("model.layers.0.self_attn.q_proj.", "model.layers.0.mlp.", "model.layers.1.self_attn.k_")
EXPERTS = ("experts.1.", "experts.2.", "experts.3.")

Digests = dict[str, dict[str, dict[str, str]]]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:12]


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What the file holds for one case; parameters of inputs are left out, as data made them."""
    layers = {
        name: tensor
        for name, tensor in tensors.items()
        if ".layers." in name and ".input_" not in name.replace("input_layernorm", "")
    }
    found = {"all": digest(layers)}
    for name, tensor in layers.items():
        if name.startswith(KEPT) and not any(part in name for part in EXPERTS):
            found[name.removeprefix("model.layers.")] = digest({name: tensor})
    return found


def read() -> Digests:
    """The file's content; empty where there is none."""
    return dict(json.loads(FILE.read_text(encoding="utf-8"))) if FILE.is_file() else {}


def write(family: str, found: Mapping[str, Mapping[str, str]]) -> None:
    """Replace what the file has of one family."""
    whole = {**read(), family: {name: dict(found[name]) for name in sorted(found)}}
    text = json.dumps(whole, indent=0, sort_keys=True).replace(",\n", ",\n")
    FILE.write_text(text + "\n", encoding="utf-8")
