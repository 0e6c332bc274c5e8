"""Model families as data: fused Linears, routers, and smoothing pairs that plugins name.

Patterns are module names relative to a decoder layer, with `*` for one name component.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from pipeline.registry import Registry
from stages.model.blueprint import LinearSpec, Pair

GROUP = "family"

ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj")

FUSED = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
    ("w1", "w3"),
    ("wq", "wk", "wv"),
    ("query", "key", "value"),
    ("q_a_proj", "kv_a_proj_with_mqa"),
    ("in_proj_qkv", "in_proj_z"),
    ("in_proj_b", "in_proj_a"),
)
"""Siblings that engines fuse into one matrix product; a group needs all of its members."""

ROUTER = re.compile(
    r"(?:^|\.)(?:gate|router|shared_expert_gate)$|(?:^|\.)(?:gate|router\w*)\.(?:.+\.)?[^.]+$"
)

SCORES: Mapping[str, re.Pattern[str]] = {
    "routers and gates of shared experts": ROUTER,
    "weights of an index that selects tokens": re.compile(r"\.(?:indexer|scorer)\.weights_proj$"),
    "mixing of alternating streams (AltUp)": re.compile(r"(?:^|\.)altup\."),
}
"""Linears that give a few scores (one an expert, a head, a stream), not features.

Engines build them without a number format, they are tiny, and an error in them changes what is
chosen. A class or a pattern never selects one, only its name does.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """Norms of a decoder layer -> all modules that each one feeds: candidates for smoothing pairs.

    Pairs are found without it (`stages.model.pairs`), and it is proven like them.

    A target may be a router, whose `weight` is [experts, hidden] but which is not a Linear.
    `norm_offset` is 1.0 if the norms multiply by 1 + weight. `value_output`: the attention's output
    is a weighted sum of v_proj's output.
    """

    norms: Mapping[str, tuple[str, ...]]
    norm_offset: float = 0.0
    value_output: bool = True


def family_of(model_type: str) -> Family | None:
    """What a plugin says of a text model (entry-point group presswork.families); None: nothing."""
    registry = Registry.load()
    if model_type not in registry.kinds(GROUP):
        return None
    found: Family = registry.get(GROUP, model_type)
    return found


def is_router(name: str) -> bool:
    """Whether a module is a router or the gate of a shared expert: engines keep those dense."""
    return ROUTER.search(name) is not None


def score(name: str) -> str | None:
    """What a module gives scores for, by the rules of SCORES; None for one that makes features."""
    return next((reason for reason, rule in SCORES.items() if rule.search(name)), None)


def fused_groups(linears: Iterable[LinearSpec]) -> tuple[tuple[str, ...], ...]:
    """The groups of `linears` that engines fuse, by the names in FUSED."""
    names = {linear.name for linear in linears}
    parents = dict.fromkeys(name.rpartition(".")[0] for name in names)
    groups = (
        tuple(f"{parent}.{leaf}" for leaf in leaves)
        for parent in sorted(parents)
        for leaves in FUSED
    )
    return tuple(group for group in groups if names.issuperset(group))


def smoothing_pairs(
    family: Family | None,
    layer: str,
    modules: Iterable[str],
    linears: Iterable[LinearSpec],
    head_dim: int,
) -> tuple[Pair, ...]:
    """The smoothing pairs of one decoder layer; `modules` are the names of all its modules.

    A norm is left out if none of its targets is in the layer.
    """
    if family is None:
        return ()
    by_name = {linear.name: linear for linear in linears}
    return (
        *_norm_pairs(family, layer, list(modules)),
        *(_value_pairs(layer, by_name, head_dim) if family.value_output else ()),
        *_up_pairs(by_name),
    )


def _norm_pairs(family: Family, layer: str, modules: list[str]) -> Iterator[Pair]:
    relative = [name.removeprefix(f"{layer}.") for name in modules]
    for norm, patterns in family.norms.items():
        targets = [
            f"{layer}.{name}"
            for name in relative
            if any(_matches(name, pattern) for pattern in patterns)
        ]
        if norm in relative and targets:
            yield Pair(
                source=f"{layer}.{norm}",
                targets=tuple(targets),
                norm_offset=family.norm_offset,
            )


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def _value_pairs(layer: str, linears: Mapping[str, LinearSpec], head_dim: int) -> Iterator[Pair]:
    value = linears.get(f"{layer}.self_attn.v_proj")
    output = linears.get(f"{layer}.self_attn.o_proj")
    if value is None or output is None or not head_dim or value.out_features % head_dim:
        return
    if output.in_features % value.out_features == 0:
        yield Pair(
            source=value.name,
            targets=(output.name,),
            source_kind="linear",
            repeats=output.in_features // value.out_features,
            head_dim=head_dim,
        )


def _up_pairs(linears: Mapping[str, LinearSpec]) -> Iterator[Pair]:
    for name in linears:
        parent, _, leaf = name.rpartition(".")
        if leaf == "up_proj" and f"{parent}.gate_proj" in linears:
            yield Pair(source=name, targets=(f"{parent}.down_proj",), source_kind="linear")
