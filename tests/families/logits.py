"""Logits of a tiny model, original, with noise, unpacked, or as transformers loads it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from stages.weights.safetensors_file import read_header
from tests.families.case import Case
from tests.families.layout import is_idle
from tests.families.tiny import class_of

IDS = torch.randint(3, 250, (2, 64), generator=torch.Generator().manual_seed(5))


def load(case: Case, folder: Path, dtype: torch.dtype | str = torch.float32) -> PreTrainedModel:
    """A checkpoint as transformers loads it; ValueError where tensors are missing or left over.

    Left over without harm are those of experts that hand their input on.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, info = class_of(case).from_pretrained(
            folder, dtype=dtype, output_loading_info=True, local_files_only=True
        )
    stored = {name for file in folder.glob("*.safetensors") for name in read_header(file).places}
    info["unexpected_keys"] = [n for n in info["unexpected_keys"] if not is_idle(n, stored)]
    wrong = {name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys") if info[name]}
    wrong |= (
        {"mismatched": sorted(map(str, info["mismatched_keys"]))} if info["mismatched_keys"] else {}
    )
    if wrong:
        told = "; ".join(f"{len(names)} {kind}, {names[0]}" for kind, names in wrong.items())
        raise ValueError(told)
    loaded: PreTrainedModel = model.eval()
    return loaded


def logits(model: PreTrainedModel) -> Tensor:
    """Logits [2, 64, vocab] in float32."""
    speaking = getattr(model, "thinker", model)  # Qwen3-Omni's whole has no forward
    with torch.no_grad():
        found: Tensor = speaking(input_ids=IDS, use_cache=False).logits
    return found.float()


def error(found: Tensor, wanted: Tensor) -> float:
    """Median over tokens of the relative error of a token's logits.

    A token that another expert serves after rounding is no error of the checkpoint, and there are
    some among random weights: hence the median.
    """
    centred = wanted - wanted.mean(-1, keepdim=True)
    change = found - wanted
    change = change - change.mean(-1, keepdim=True)
    relative = change.norm(dim=-1) / centred.norm(dim=-1)
    return float(relative.nan_to_num(float("inf")).median())


def with_noise(
    tensors: Mapping[str, Tensor], modules: Collection[str], level: float
) -> dict[str, Tensor]:
    """Tensors on disk with Gaussian noise of `level` times the root mean square of each weight."""
    generator = torch.Generator().manual_seed(9)
    noisy = {}
    for name, tensor in tensors.items():
        noisy[name] = tensor
        if name.removesuffix(".weight") in modules or ("experts" in name and tensor.dim() == 3):
            value = tensor.float()
            noise = torch.randn(value.shape, generator=generator) * value.square().mean().sqrt()
            noisy[name] = (value + level * noise).to(tensor.dtype)
    return noisy
