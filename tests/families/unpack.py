"""Dense float32 weights of a compressed-tensors checkpoint, by its tensors alone.

Written from the layouts' description: nothing of presswork or compressed-tensors is used, so that
a fault that both share with the writer cannot hide.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
INPUTS = ("input_scale", "input_zero_point", "input_global_scale")
PARTS = (
    *("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape"),
    *("weight_global_scale", "weight_g_idx"),
    *INPUTS,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Unpacked:
    """Dense tensors by name on disk; modules that were compressed."""

    tensors: Mapping[str, Tensor]
    modules: frozenset[str]


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def unpack(folder: Path, turned: Collection[str] = ()) -> Unpacked:
    """Dequantize every weight of a checkpoint folder.

    The modules `turned` keep theirs as [in, out]: a `weight` of theirs is so on disk, and scales
    and packed codes are those of [out, in].
    """
    tensors = tensors_of(folder)
    bits = _bits(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    modules = {n.removesuffix(".weight_scale") for n in tensors if n.endswith(".weight_scale")}
    dense = {n: t for n, t in tensors.items() if not _part_of(n, modules)}
    for module in modules:
        parts = {p: tensors[f"{module}.{p}"] for p in PARTS if f"{module}.{p}" in tensors}
        if module in turned and "weight" in parts:
            parts["weight"] = parts["weight"].T
        made = weight(parts, bits)
        dense[f"{module}.weight"] = made.T if module in turned else made
    return Unpacked(tensors=dense, modules=frozenset(modules))


def weight(parts: Mapping[str, Tensor], bits: int) -> Tensor:
    """The float32 weight [out, in] of one module, from its tensors; `bits` of packed integers."""
    scale = parts["weight_scale"].float()
    if "weight_packed" not in parts:
        codes = parts["weight"].float()
    elif parts["weight_packed"].dtype == torch.uint8:
        codes = _fp4(parts["weight_packed"])
        scale = scale / parts["weight_global_scale"].float()
    else:
        shape = [int(n) for n in parts["weight_shape"]]
        codes = _integers(parts["weight_packed"], shape, bits)
    zero = parts.get("weight_zero_point")
    if zero is not None and zero.any():
        raise ValueError("the schemes of these tests are symmetric")
    groups = scale.shape[-1] if scale.dim() == 2 else 1
    spread = codes.reshape(codes.shape[0], groups, -1) * scale.reshape(-1, groups, 1)
    return spread.reshape(codes.shape)


def _fp4(packed: Tensor) -> Tensor:
    """Two E2M1 numbers a byte, the first in the low half; bit 3 is the sign."""
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2).long()
    return E2M1[nibbles & 7] * torch.where(nibbles >= 8, -1.0, 1.0)


def _integers(packed: Tensor, shape: list[int], bits: int) -> Tensor:
    """Unsigned codes in int32 words, lowest bits first, offset by half their range."""
    shifts = torch.arange(0, 32, bits)
    codes = (packed.long()[..., None] >> shifts) & (2**bits - 1)
    return (codes.flatten(-2)[:, : shape[1]] - 2 ** (bits - 1)).float()


def _bits(config: Mapping[str, object]) -> int:
    quantization = config.get("quantization_config") or {}
    assert isinstance(quantization, dict)
    groups: Iterable[dict[str, dict[str, int]]] = quantization.get("config_groups", {}).values()
    return next((group["weights"]["num_bits"] for group in groups), 0)


def _part_of(name: str, modules: Iterable[str]) -> bool:
    module, _, part = name.rpartition(".")
    return part in PARTS and module in modules
