"""Names of weights: experts among them, and how per-expert tensors make a fused one again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EXPERT = re.compile(r"\.experts?\.\d+\.")

FLAT = re.compile(r"\.experts\.mlp\.\w+$")
"""Matrices in which DBRX has all experts' rows one below the other."""
LEAVES = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    "input_linear": ("gate_proj", "up_proj"),
    "output_linear": ("down_proj",),
    "down_proj": ("down_proj",),
    "up_proj": ("up_proj",),
    **{"fc1": ("gate_proj", "up_proj"), "fc2": ("down_proj",)},
    **{"w1": ("gate_proj",), "v1": ("up_proj",), "w2": ("down_proj",)},
}
"""Fused tensor -> what it is made of; the last two lines are Aria's and DBRX's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """Dense tensors under the names that the original has on disk."""

    tensors: Mapping[str, Tensor]
    from_modules: Mapping[str, str]
    """Module whose weight went into a tensor of another name -> that name."""

    def compressed(self, modules: Iterable[str]) -> set[str]:
        """Names on disk of the weights that `modules` hold compressed."""
        return {self.from_modules.get(module, f"{module}.weight") for module in modules}


def is_expert(module: str) -> bool:
    """Whether a module on disk is one matrix of one expert."""
    return EXPERT.search(f"{module}.") is not None


def is_idle(name: str, names: Iterable[str]) -> bool:
    """Whether a tensor is of an expert without a matrix down (LongCat's hand their input on).

    Nothing ever uses it, though transformers makes room for it where experts are fused.
    """
    found = re.match(r"(.+\.experts\.\d+\.)\w+\.", name)
    if found is None:
        return False
    downs = (f"{found[1]}down_proj.", f"{found[1]}w2.")
    return not any(other.startswith(downs) for other in names)


def expert_matrices(tensors: Mapping[str, Tensor]) -> int:
    """How many matrices of experts a dense checkpoint holds, one by one or fused."""
    total = 0
    for name, tensor in tensors.items():
        if name.startswith("talker."):  # Qwen3-Omni's speech: not the language model
            continue
        if is_expert(name) and tensor.dim() == 2:
            total += not is_idle(name, tensors)
        elif tensor.dim() == 3 and ("expert" in name or "block_sparse_moe" in name):
            doubled = re.search(r"(gate_up_proj|(input_linear|fc1)(\.weight)?|gate_up)$", name)
            total += tensor.shape[0] * (2 if doubled else 1)
        elif tensor.dim() == 2 and FLAT.search(name):
            total += _flat_experts(name, tensors)
    return total


def _flat_experts(name: str, tensors: Mapping[str, Tensor]) -> int:
    """How many experts a matrix of DBRX has: those that its router has scores for."""
    return len(tensors[f"{name.partition('.experts.')[0]}.router.layer.weight"])


def original_names(tensors: Mapping[str, Tensor], original: Mapping[str, Tensor]) -> Named:
    """Dense tensors with those of experts fused where the original has them fused."""
    tensors = {_own(name, original): tensor for name, tensor in tensors.items()}
    found = {name: tensor for name, tensor in tensors.items() if name in original}
    made: dict[str, str] = {}
    for name, wanted in original.items():
        flat = FLAT.search(name) is not None
        if name not in found and (wanted.dim() == 3 or name.endswith("_bias") or flat):
            fused = _fused(name, original, tensors)
            if fused is not None:
                found[name] = fused.tensor
                made |= dict.fromkeys(fused.modules, name) if wanted.dim() == 3 or flat else {}
    rest = [
        name for name in tensors if name not in original and name.rpartition(".")[0] not in made
    ]
    missing = [name for name in original if name not in found]
    if rest or missing:
        raise ValueError(f"names: {len(missing)} missing {missing[:2]}, {len(rest)} new {rest[:2]}")
    return Named(tensors=found, from_modules=made)


def _own(name: str, original: Collection[str]) -> str:
    """The name that an expert's tensor has in the original: some writers rename w1, w2 and w3."""
    if name in original:
        return name
    for other, own in (("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")):
        renamed = name.replace(f".{other}.", f".{own}.")
        if renamed != name and renamed in original:
            return renamed
    return name


@dataclass(frozen=True, kw_only=True, slots=True)
class Fused:
    tensor: Tensor
    modules: Collection[str]


def _fused(
    name: str, original: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> Fused | None:
    """The fused tensor `name` of the original, from the experts' own tensors."""
    wanted = original[name]
    container, _, leaf = name.removesuffix(".weight").rpartition(".")
    bias = leaf.endswith("_bias")
    part = "bias" if bias else "weight"
    leaves, flat = LEAVES.get(leaf.removesuffix("_bias")), FLAT.search(name) is not None
    if leaves is None:
        return None
    if flat:
        container = container.removesuffix(".mlp")
    inside = container if container.endswith("experts") else f"{container}.experts"
    count = _flat_experts(name, original) if flat else wanted.shape[0]
    modules = [[f"{inside}.{e}.{x}" for x in leaves] for e in range(count)]
    if any(f"{m}.{part}" not in tensors for row in modules for m in row):
        return None
    # gpt-oss, whose experts have biases, has gate and up row by row in turns
    turns = len(leaves) == 2 and f"{container}.gate_up_proj_bias" in original
    rows = [[tensors[f"{m}.{part}"] for m in row] for row in modules]
    joined = [torch.stack(r, dim=1).flatten(0, 1) if turns else torch.cat(r) for r in rows]
    stacked = torch.stack(joined)
    if flat:
        stacked = stacked.transpose(1, 2) if leaf == "w2" else stacked
        stacked = stacked.flatten(0, 1)
    elif not bias and (turns or stacked.shape != wanted.shape):
        stacked = stacked.transpose(1, 2)
    return Fused(tensor=stacked, modules=[m for row in modules for m in row])
