"""Transposed Linears (Conv1D of GPT-2): a Linear in the place of each, and who reads them.

transformers' Conv1D computes y = x W + b with W [in, out]. Here a Linear stands in its place, whose
weight [out, in] is W transposed, so that all formats group along inputs as they do elsewhere.

In a checkpoint a tensor called `weight` (dense, FP8, INT8) stays [in, out], and packed codes,
scales and zero points are those of the Linear. That is what vLLM takes: its loader of GPT-2
transposes what ends with `.weight` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from torch import nn
from transformers.pytorch_utils import Conv1D

from pipeline.errors import UserError

REREAD = "give the dense model that it was made from"


def turned(model: nn.Module) -> tuple[str, ...]:
    """Put a Linear on the meta device in the place of every Conv1D of `model`; their names."""
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, Conv1D)]
    for name, module in found:
        rows, columns = module.weight.shape
        weight = nn.Linear(rows, columns, device="meta", dtype=module.weight.dtype)
        weight.requires_grad_(False)
        model.set_submodule(name, weight.train(module.training))
    return tuple(name for name, _ in found)


def conv1d_names(model: nn.Module) -> Iterator[str]:
    """The names of all Conv1D modules of `model`."""
    return (name for name, module in model.named_modules() if isinstance(module, Conv1D))


def as_linears(
    names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], model: nn.Module
) -> dict[str, tuple[int, ...]]:
    """Tensor on disk -> shape [out, in] of all weights that the disk has as [in, out].

    names: module -> the tensor of its weight; shapes: of tensors on disk; `model` has Linears in
    place of Conv1D. Raises UserError where the disk has one as a Linear would: a compressed
    checkpoint does.
    """
    found = {}
    for name, stored in names.items():
        linear = cast(nn.Linear, model.get_submodule(name))
        wanted, shape = (linear.out_features, linear.in_features), shapes[stored]
        if shape == wanted != wanted[::-1]:
            raise UserError(
                f"{stored} is {list(shape)}: it is packed, while {name} keeps its weight as "
                f"{list(wanted[::-1])}, and compressed models with such modules are not read again",
                remedy=REREAD,
            )
        found[stored] = shape[::-1]
    return found
