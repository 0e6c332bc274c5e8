"""Proof of a model's smoothing pairs on a shrunken instance, and their place in its own layers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageFailed
from stages.model.blueprint import Pair, Subgraph
from stages.model.blueprint_from_class import blueprint_of
from stages.model.families import family_of, smoothing_pairs
from stages.model.meta_model import config_of, meta_model, tree_of
from stages.model.pairs.bench import Bench, moved, powers
from stages.model.pairs.finder import DEPENDS, Found, find
from stages.model.pairs.namer import expert_lists, head_dim_of
from stages.model.pairs.proven import KindOfLayer, PairPattern, ProvenPairs, movable, users_of
from stages.model.shrunken import Shrunken, randomize, tokens
from stages.model.shrunken.depth import Signature, signatures
from stages.model.skeleton import Skeleton, skeleton

SEED = 0
ATTEMPTS = 16
"""Draws of weights, and of more tokens, until every expert has seen some."""
MOST_ROWS = 15
STEP, CALMER = 0.25, 0.75
"""How far a balancing bias moves for an expert that has all tokens instead of its share, at first,
and by which factor less at each attempt."""
SLIGHT = 1 / 16
"""Factor of biases that balance experts: with ZAYA's top-1, larger ones would choose alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A pattern that is said to hold in every layer of a kind."""

    kind: Signature
    pattern: PairPattern


def prove_pairs(config: Mapping[str, Any], small: Shrunken) -> ProvenPairs:
    """The pairs of the model of a parsed config.json, proven on its shrunken instance.

    They are found in one layer of each kind. Then all of them, in all layers at once, are given
    factors of their own: everything handed on, and the logits, stay equal to the bit.
    """
    # in float32 whatever the model's dtype is: 1 + w, moved, has no room in bfloat16
    bones = skeleton(replace(blueprint_of(small.config), dtype="float32"))
    bench = _bench(bones, small.input_ids)
    of_layer = _kinds(small.config)
    found: dict[Signature, Found] = {}
    for index, kind in enumerate(of_layer):
        if kind not in found:
            found[kind] = find(bench, index, _named(bones, index))
    claims = [Claim(kind=kind, pattern=p) for kind, f in found.items() for p in f.patterns]
    held, dropped = confirm(bench, of_layer, claims)
    refused = dict.fromkeys([r for f in found.values() for r in f.refused] + dropped)
    kinds, unknown = _placed(config, found, held)
    return ProvenPairs(kinds=kinds, refused=(*refused, *unknown))


def confirm(
    bench: Bench, of_layer: Sequence[Signature], claims: Sequence[Claim]
) -> tuple[list[Claim], list[str]]:
    """The claims that hold in the whole model, all at once, and those that do not with the reason.

    `of_layer` is the kind of every layer of the bench's model.
    """
    held = list(claims)
    if not _hold(bench, of_layer, held):
        held = [claim for claim in claims if _hold(bench, of_layer, [claim])]
        if not _hold(bench, of_layer, held):
            held = []
    lost = [claim.pattern for claim in claims if claim not in held]
    return held, [f"{p.source} -> {', '.join(p.targets)}: {DEPENDS} (later)" for p in lost]


def _hold(bench: Bench, of_layer: Sequence[Signature], claims: Sequence[Claim]) -> bool:
    """Whether nothing changes where both sides are scaled, and something does where one is."""
    if not claims:
        return True
    blueprint = bench.bones.blueprint
    users = users_of(blueprint.layers)
    pairs = [
        pair
        for layer, kind, module in zip(blueprint.layers, of_layer, bench.bones.layers, strict=True)
        for claim in claims
        if claim.kind == kind
        for pair in claim.pattern.pairs(layer, head_dim_of(module))
        if movable(pair, layer, users)
    ]
    both = bench.run(_scaled(bench, pairs, targets=True))
    alone = bench.run(_scaled(bench, pairs, targets=False))
    return bool(pairs) and both.same(bench.plain) and not alone.same(bench.plain)


def _scaled(bench: Bench, pairs: Sequence[Pair], *, targets: bool) -> dict[str, Tensor]:
    changed: dict[str, Tensor] = {}
    for number, pair in enumerate(pairs):
        factors = powers(len(bench.tensors[f"{pair.source}.weight"]), seed=100 + number)
        changed |= moved(ChainMap(changed, bench.tensors), pair, factors, targets=targets)
    return changed


def _bench(bones: Skeleton, input_ids: Tensor) -> Bench:
    """A bench on which every expert is given tokens, if that can be had."""
    _drawn(bones, SEED)
    bench = Bench(bones, input_ids)
    for attempt in range(1, ATTEMPTS):
        if all(bench.plain.inputs[linear] for linear in _expert_linears(bones)):
            break
        if not _balance(bench, STEP * CALMER**attempt):
            _drawn(bones, SEED + attempt)
        if len(input_ids) < MOST_ROWS:
            input_ids = torch.cat((input_ids, tokens(bones.model, seed=1 + attempt)))
        bench = Bench(bones, input_ids)
    return bench


def _drawn(bones: Skeleton, seed: int) -> None:
    """Give the model random weights, with routers that may choose every expert.

    Tables that route tokens by their ids (hash routing) name all, and biases that balance experts
    are so small that they alone decide nothing.
    """
    randomize(bones.model, seed)
    draw = torch.Generator().manual_seed(SEED)
    for layer in bones.layers:
        count = max((len(experts) for experts in expert_lists(layer).values()), default=0)
        for table in layer.buffers() if count else ():
            if table.dim() == 2 and not (table.is_floating_point() or table.dtype == torch.bool):
                offset = torch.randint(count, (len(table), 1), generator=draw)
                table.copy_((table + offset) % count)
        for bias in _balancing(layer, count):
            bias.mul_(SLIGHT)


def _balance(bench: Bench, step: float) -> bool:
    """Move the biases that balance experts towards those with few tokens; False without any.

    A router that is an MLP (ZAYA's) sends nearly all tokens of a random model to one expert.
    """
    found = False
    for name, layer in zip(bench.bones.blueprint.members, bench.bones.layers, strict=True):
        for local, experts in expert_lists(layer).items():
            seen = [_tokens(bench, f"{name}.{local}.{number}.") for number in range(len(experts))]
            share = torch.tensor(seen, dtype=torch.float32) / max(1, sum(seen))
            for bias in _balancing(layer, len(experts)):
                bias[: len(experts)] += step * (1 / len(experts) - share)
                found = True
    return found


def _tokens(bench: Bench, expert: str) -> int:
    """The most tokens that a Linear of an expert was given."""
    inputs = (calls for linear, calls in bench.plain.inputs.items() if linear.startswith(expert))
    return max((sum(x.shape[0] for x in calls) for calls in inputs), default=0)


def _balancing(layer: nn.Module, count: int) -> Iterator[Tensor]:
    """The buffers of a layer that bias the choice of its `count` experts (and of none of them)."""
    for bias in layer.buffers() if count else ():
        if bias.dim() == 1 and bias.is_floating_point() and len(bias) in (count, count + 1):
            yield bias


def _expert_linears(bones: Skeleton) -> list[str]:
    layers = bones.blueprint.layers
    return [linear.name for layer in layers for linear in layer.linears if linear.expert]


def _named(bones: Skeleton, index: int) -> Iterable[Pair]:
    """The pairs that a plugin's family names for a layer."""
    family = family_of(bones.blueprint.model_type)
    layer: Subgraph = bones.blueprint.layers[index]
    module = bones.layers[index]
    modules = [f"{layer.name}.{local}" for local, _ in module.named_modules() if local]
    return smoothing_pairs(family, layer.name, modules, layer.linears, head_dim_of(module))


def _kinds(config: Mapping[str, Any]) -> list[Signature]:
    found = signatures(config, widths=False)
    if found is None:
        raise StageFailed("a model whose decoder layers cannot be built has no smoothing pairs")
    return found


def _placed(
    config: Mapping[str, Any], found: Mapping[Signature, Found], held: Sequence[Claim]
) -> tuple[tuple[KindOfLayer, ...], list[str]]:
    """What holds, by the layers of the model itself; and why some layers have no pairs."""
    model = meta_model(config_of(config), "float32")
    layers: dict[tuple[Signature, int], list[str]] = {}
    for name, kind in zip(tree_of(model).layers, _kinds(config), strict=True):
        width = head_dim_of(model.get_submodule(name))
        layers.setdefault((kind, width), []).append(name)
    kinds = tuple(
        KindOfLayer(
            layers=tuple(names),
            head_dim=width,
            patterns=tuple(claim.pattern for claim in held if claim.kind == kind),
        )
        for (kind, width), names in layers.items()
        if kind in found
    )
    unknown = [
        f"{', '.join(names)}: no layer of the small model that proves pairs is of this kind"
        for (kind, _), names in layers.items()
        if kind not in found
    ]
    return kinds, unknown
