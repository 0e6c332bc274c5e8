"""Shrunken instance: a model of the same class, small and random, on which structure is proven.

Its config is that of a given model with small widths, experts, windows and vocabulary, and with no
more layers than it takes to have each kind of layer next to the same kinds. Every parameter and
persistent buffer is random, so that nothing is equal by being zero or one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from pipeline.errors import StageFailed, UserError
from stages.model.meta_model import NO_MODEL, config_of, meta_model, tree_of
from stages.model.shrunken.config_fields import Kind
from stages.model.shrunken.depth import shallow_towers, small_depth
from stages.model.shrunken.widths import Sizes, Widths
from stages.model.skeleton import fill_computed

ROWS, LENGTH = 3, 29
"""Sequences and tokens in each: longer than windows, chunks and top-k; sizes of nothing else."""
FIRST_ID, LAST_ID = 8, 64
"""Ids of ordinary tokens; those with a meaning lie outside."""
MOST = 40_000_000
"""Parameters beyond which a model counts as not shrunk."""
ATTEMPTS: tuple[Sizes, ...] = (
    Sizes(),
    Sizes(head_dim=32),
    Sizes(kept=frozenset({Kind.HEAD_DIM})),
    Sizes(head_dim=64, heads=8, window=16, state=16),
    *(
        Sizes(kept=frozenset({kind}))
        for kind in (Kind.SHARES, Kind.STATE, Kind.WINDOW, Kind.KEYS, Kind.RANK, Kind.EXPERTS)
    ),
    Sizes(kept=frozenset({Kind.HEAD_DIM, Kind.HEADS, Kind.KV_HEADS, Kind.RANK, Kind.SHARES})),
    Sizes(kept=frozenset(set(Kind) - {Kind.EXPERTS, Kind.VOCABULARY, Kind.ID, Kind.DEPTH})),
)
"""Ways to shrink, the first that gives a model that runs is taken."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Shrunken:
    """A small random model: its parsed config.json, the model, and token ids int64 [rows, length].

    `layers` counts its decoder layers, `of` those of the model that was shrunk.
    """

    config: dict[str, Any]
    model: PreTrainedModel
    input_ids: Tensor
    layers: int
    of: int


def shrunken(config: Mapping[str, Any], *, seed: int = 0, dtype: str = "float32") -> Shrunken:
    """The shrunken instance of the model of a parsed config.json, on the CPU.

    dtype: "float32" or "float64". The same arguments give the same model, on any machine of a kind.
    Raises UserError (StageFailed) where no small model of the class runs.
    """
    whole = config_of(config)
    path, text = text_path(whole)
    plain = everything(whole)
    with _quiet():
        few = small_depth(shallow_towers(plain, path), path, depth_name(text))
    errors: list[str] = []
    for sizes in ATTEMPTS:
        try:
            small = Widths(sizes=sizes).shrink(few)
            with _quiet(), torch.no_grad():
                model = instance(small, seed=seed, dtype=dtype)
                ids = tokens(model)
                model(input_ids=ids, use_cache=False)
        except (UserError, *NO_MODEL) as error:
            what = error.what if isinstance(error, UserError) else str(error)
            errors.append(f"{type(error).__name__}: {what.strip().splitlines()[0] if what else ''}")
            continue
        layers = len(tree_of(model).layers)
        return Shrunken(
            config=small, model=model, input_ids=ids, layers=layers, of=text.num_hidden_layers
        )
    raise StageFailed(
        f"no small {whole.model_type} model could be made to prove on: {errors[0]}",
        remedy="report the architecture with its config.json",
    )


def everything(config: PreTrainedConfig) -> dict[str, Any]:
    """A config as config.json would have it with all its fields, those at their defaults too.

    Of parts whose class takes no other fields than its own (DBRX's) the base class's are left out
    where they are at their defaults.
    """
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    try:
        config_of(plain)
    except UserError:
        base = {field.name for field in fields(PreTrainedConfig)}
        for name in config.sub_configs:
            part = getattr(config, name, None)
            if isinstance(part, PreTrainedConfig):
                own = {field.name for field in fields(type(part))} - base
                own |= part.to_diff_dict().keys()
                plain[name] = {n: v for n, v in plain[name].items() if n in own}
    return plain


def instance(
    config: Mapping[str, Any], *, seed: int = 0, dtype: str = "float32"
) -> PreTrainedModel:
    """The model of a small parsed config.json with random weights, on the CPU."""
    model = meta_model(config_of(config), dtype)
    count = sum(tensor.numel() for tensor in model.state_dict().values())
    if count > MOST:
        raise StageFailed(f"the shrunken model has {count} parameters")
    fill_computed(model, torch.device("cpu"))
    randomize(model, seed)
    return model


def randomize(model: nn.Module, seed: int) -> None:
    """Give every parameter and persistent buffer of `model` random values, on the CPU.

    Matrices are normal with a variance of 1 / inputs, so that activations stay near 1; vectors are
    what the class itself starts with (ones, a ramp) or zero, and as much noise as tells them apart.
    Integers are indices of a few things, none twice in a row.
    """
    draw = torch.Generator().manual_seed(seed)
    made: dict[int, Tensor] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in made:
            new = _random(name, tensor, draw)
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(new, requires_grad=False) if parameter else new
    for module in model.modules():
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for holder in holders:
            for name, old in holder.items():
                if old is not None:
                    holder[name] = made.get(id(old), old)


def tokens(model: PreTrainedModel, *, seed: int = 1) -> Tensor:
    """Random ids of ordinary tokens, int64 [ROWS, LENGTH]."""
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    last = min(LAST_ID, vocabulary)
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(min(FIRST_ID, last - 1), last, (ROWS, LENGTH), generator=draw)


def text_path(config: PreTrainedConfig) -> tuple[tuple[str, ...], PreTrainedConfig]:
    """The names that lead from a config to that of its text model, and the latter."""
    text = config.get_text_config(decoder=True)
    for path, part in _parts(config):
        if part is text:
            return path, text
    return (), text


def depth_name(text: PreTrainedConfig) -> str:
    """The name in config.json of the number of decoder layers."""
    name: str = text.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    return name


def _parts(
    config: PreTrainedConfig, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], PreTrainedConfig]]:
    yield path, config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            yield from _parts(part, (*path, name))


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without transformers' warnings, which speak of configs that are only tried."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _random(name: str, tensor: Tensor, draw: torch.Generator) -> Tensor:
    shape, dtype = tensor.shape, tensor.dtype
    if dtype == torch.bool or tensor.numel() == 0:
        return torch.zeros(shape, dtype=dtype)
    if not dtype.is_floating_point:
        return torch.rand(shape, generator=draw).argsort(dim=-1).to(dtype)
    noise = torch.randn(shape, generator=draw, dtype=torch.float64)
    if tensor.dim() > 1:
        inputs = math.prod(shape[1:]) if tensor.dim() != 3 or "conv" in name else shape[-1]
        return (noise / math.sqrt(max(1, inputs))).to(dtype)
    start = 1.0 if name.endswith("weight") else 0.0
    return (start + 0.2 * noise).to(dtype)
