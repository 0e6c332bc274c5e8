"""Plan-time checks of what a scheme says in vain: groups and entries of `ignore` for no module."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint, LinearSpec
from stages.schemes.resolve import (
    HEAD,
    Resolved,
    compact,
    matches,
    matches_name,
    names_of,
    noted,
    selects,
    where,
)
from stages.schemes.scheme import SchemeConfig


def idle_parts(
    scheme: SchemeConfig, blueprint: Blueprint, modules: Mapping[str, Resolved]
) -> tuple[UserError, ...]:
    """One error for every part of `scheme` that changes nothing; `modules` is what it resolves to.

    Targets that match nothing at all are told by `resolve`.
    """
    layers = [linear for layer in blueprint.layers for linear in layer.linears]
    everything = [*layers, *blueprint.ends()]
    return (
        *_groups(scheme, blueprint, modules, everything),
        *_ignores(scheme, blueprint, everything),
    )


def _groups(
    scheme: SchemeConfig,
    blueprint: Blueprint,
    modules: Mapping[str, Resolved],
    everything: list[LinearSpec],
) -> Iterator[UserError]:
    """Groups whose targets all match modules, none of which is theirs in the end."""
    busy = {resolved.group for resolved in modules.values()}
    for name, group in scheme.ordered():
        if name in busy:
            continue
        chosen = [[x for x in everything if selects(t, x, blueprint)] for t in group.targets]
        if not all(chosen):
            continue
        others = list({linear.name: linear for found in chosen for linear in found}.values())
        yield UserError(
            f"{where(name)} is for no module of this model: what its targets match is in "
            "scheme.ignore, outside the decoder layers, or has a format already: "
            f"{'; '.join(compact(others)[:4])}{noted(blueprint)}",
            remedy=f"give other targets than {', '.join(group.targets)}, or leave {where(name)} "
            "out",
        )


def _ignores(
    scheme: SchemeConfig, blueprint: Blueprint, everything: list[LinearSpec]
) -> Iterator[UserError]:
    """Entries of `ignore` that match no module, be it one that could be compressed or not."""
    others: set[str] | None = None
    for pattern in scheme.ignore:
        if pattern == HEAD:
            continue  # every preset has it, and of a model without a head nothing is compressed
        if any(matches(pattern, names_of(x, blueprint), x.kind) for x in everything):
            continue
        others = _modules(blueprint) if others is None else others
        if matches_name(pattern, others):
            continue
        near = difflib.get_close_matches(pattern, [x.name for x in everything], n=3, cutoff=0.6)
        yield UserError(
            f"scheme.ignore has {pattern!r}, which matches no module of this model",
            remedy="leave it out, or correct it: names are whole, expressions (re:) match from "
            f"the start{'; did you mean ' + ', '.join(near) + '?' if near else ''}",
        )


def _modules(blueprint: Blueprint) -> set[str]:
    """Names of all modules with tensors, in the module tree and in the checkpoint."""
    tensors = [blueprint.outside, *(layer.tensors for layer in blueprint.layers)]
    names = {name for table in tensors for pair in table.items() for name in pair}
    return {name.rpartition(".")[0] for name in (*names, *blueprint.carried)}
