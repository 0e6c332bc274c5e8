"""Proof that experts taken apart compute what their container computes.

It is made on real numbers: the containers of a small instance of the model's class, with random
weights, are given tokens for each of their experts, and so are the Linears that replace them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.errors import UserError
from stages.model.experts.layout import SCORED, SORTED, Layout
from stages.model.experts.linear_experts import LinearExperts, fits
from stages.model.module_patches import swapped
from stages.model.shrunken import shrunken

TOKENS = 8
ROUNDING = 1e-5
"""Largest relative difference in float32: a product of gate and up together may be summed in
another order than that of one of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """Largest difference relative to the largest output, over one container or a whole model.

    `exact`: every output is equal to the bit.
    """

    kind: str
    difference: float

    @property
    def exact(self) -> bool:
        return self.difference == 0.0


def check_experts(config: Mapping[str, Any]) -> None:
    """Raise UserError unless the experts of a model, taken apart, compute what they did.

    It is tried on a shrunken instance of the model of a parsed config.json.
    """
    error = _unproven(json.dumps(dict(config), sort_keys=True))
    if error is not None:
        raise error


@lru_cache(maxsize=64)
def _unproven(config: str) -> UserError | None:
    try:
        small = shrunken(json.loads(config))
        prove_experts(small.model, small.input_ids)
    except UserError as error:
        return error
    return None


def prove_experts(model: PreTrainedModel, input_ids: Tensor) -> dict[str, Proof]:
    """Proof for every class of containers in `model` and, by the model's class, for its logits.

    `model` is materialized, in float32, with random weights; `input_ids` is int64 [b, T]. Raises
    UserError that names the class whose experts, taken apart, compute something else.
    """
    containers = {name: module for name, module in model.named_modules() if fits(module)}
    apart = {name: apart_of(module) for name, module in containers.items()}
    found: dict[str, Proof] = {}
    with torch.no_grad(), _eager(containers.values()):
        for name, module in containers.items():
            one = _proof(type(module).__name__, *_outputs(module, apart[name]))
            before = found.get(one.kind, one)
            found[one.kind] = max(before, one, key=lambda proof: proof.difference)
        if containers:
            whole = model(input_ids=input_ids, use_cache=False).logits
            with swapped(model, apart):
                replaced = model(input_ids=input_ids, use_cache=False).logits
            kind = type(model).__name__
            found[kind] = _proof(kind, whole, replaced)
    return found


def apart_of(module: nn.Module) -> LinearExperts:
    """The experts of a materialized container as Linears that hold its numbers."""
    experts = LinearExperts.of(module)
    parameters = dict(module.named_parameters(recurse=bool(experts.layout.names)))
    for target, parameter in parameters.items():
        for name, cut in experts.cuts(target, 0, target, ()).items():
            parent, _, leaf = name.rpartition(".")
            blocks = parameter.detach()
            if cut.blocks:
                blocks = blocks.view(cut.blocks, -1, blocks.shape[1])
            weight = nn.Parameter(cut.of(blocks[cut.index]), requires_grad=False)
            experts.get_submodule(parent)._parameters[leaf] = weight
    return experts


def _outputs(module: nn.Module, experts: LinearExperts) -> tuple[Tensor, Tensor]:
    """What both make of tokens for every expert; for each token two experts of the `layout`."""
    arguments = _tokens(experts.layout)
    return module(*arguments), experts(*arguments)


def _tokens(layout: Layout) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    count = layout.experts + (1 if layout.identities else 0)
    if layout.arguments == SORTED:
        hidden = torch.randn(layout.experts, TOKENS, layout.hidden, generator=generator)
        hidden[:, ::3] = 0  # tokens that are not routed there
        return (hidden.flatten(0, 1),)
    tokens = TOKENS * count
    first = torch.arange(tokens) % count
    indices = torch.stack((first, (first + 1) % count), dim=-1)
    hidden = torch.randn(tokens, layout.hidden, generator=generator)
    if layout.arguments == SCORED:
        return hidden, torch.randn(tokens, count, generator=generator)
    return hidden, indices, torch.rand(tokens, 2, generator=generator)


def _proof(kind: str, wanted: Tensor, found: Tensor) -> Proof:
    size = wanted.abs().max().clamp_min(torch.finfo(wanted.dtype).tiny)
    difference = float((wanted.view(found.shape) - found).abs().max() / size)
    if not difference <= ROUNDING:  # also where it is not a number
        raise UserError(
            f"the experts of {kind} compute something else once they are Linears of their own "
            f"(relative difference {difference:.2g})",
            remedy="put the experts in scheme.ignore, or add a patch for this class",
        )
    return Proof(kind=kind, difference=difference)


@contextmanager
def _eager(containers: Iterable[nn.Module]) -> Iterator[None]:
    """Context in which containers run their own code, not a kernel for all experts at once."""
    found: list[Any] = [getattr(module, "config", None) for module in containers]
    configs = {id(config): config for config in found if config is not None}
    before = {key: config._experts_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._experts_implementation = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._experts_implementation = before[key]
