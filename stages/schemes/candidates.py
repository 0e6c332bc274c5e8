"""Candidate formats of `scheme.candidates`, and the units of modules that share one choice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from stages.schemes.idle import idle_parts
from stages.schemes.quant_args import QArgs
from stages.schemes.resolve import compact, resolve
from stages.schemes.scheme import SchemeConfig, SchemeGroup
from stages.schemes.sizes import linear_bytes

if TYPE_CHECKING:
    from stages.model.blueprint import Blueprint, LinearSpec, Subgraph

ANY = QArgs(num_bits=8, strategy="channel")
"""Placeholder for a format that is yet to be chosen; it fits a weight of any width."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """Modules of one layer that engines run as one and that therefore share one format.

    `candidates` maps the name of every format that fits all of them to their size in bytes.
    """

    layer: str
    linears: tuple[LinearSpec, ...]
    candidates: Mapping[str, int]

    @property
    def elements(self) -> int:
        return sum(linear.in_features * linear.out_features for linear in self.linears)


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """All units of a model in order, the candidate formats, and the problems of the scheme."""

    units: tuple[Unit, ...]
    formats: Mapping[str, SchemeGroup]
    problems: tuple[UserError, ...] = ()

    def range(self) -> tuple[float, float]:
        """The lowest and the highest bits per weight that a choice can have."""
        elements = sum(unit.elements for unit in self.units) or 1
        least = sum(min(unit.candidates.values()) for unit in self.units)
        most = sum(max(unit.candidates.values()) for unit in self.units)
        return 8 * least / elements, 8 * most / elements


def units_of(scheme: SchemeConfig, blueprint: Blueprint) -> Units:
    """The units whose format is to be chosen; modules in `scheme.groups` have theirs already."""
    formats = formats_of(scheme)
    places = SchemeConfig(
        weights=ANY, targets=scheme.targets, ignore=scheme.ignore, groups=scheme.groups
    )
    resolution = resolve(places, blueprint)
    undecided = {name for name, choice in resolution.modules.items() if choice.group == "scheme"}
    problems = [*resolution.problems, *idle_parts(places, blueprint, resolution.modules)]
    if outside := [end.name for end in blueprint.ends() if end.name in undecided]:
        problems.append(
            UserError(
                f"{', '.join(outside)}: formats are chosen for the decoder layers only",
                remedy="put it in scheme.ignore, or give it a format in scheme.groups",
            )
        )
    units: list[Unit] = []
    for layer in blueprint.layers:
        for linears in together(layer, undecided):
            fitting = {
                name: sum(linear_bytes(linear, group, blueprint.dtype) for linear in linears)
                for name, group in formats.items()
                if all(fits(linear, group) for linear in linears)
            }
            units.append(Unit(layer=layer.name, linears=linears, candidates=fitting))
    if stuck := [linear for unit in units if not unit.candidates for linear in unit.linears]:
        problems.append(
            UserError(
                "no candidate has a group size that divides the width of\n"
                + "\n".join(f"    {line}" for line in compact(stuck)),
                remedy="give other scheme.group_sizes, or put the modules in scheme.ignore",
            )
        )
    return Units(units=tuple(units), formats=formats, problems=tuple(problems))


def formats_of(scheme: SchemeConfig) -> dict[str, SchemeGroup]:
    """The candidates by name, each integer group format in each of `scheme.group_sizes`.

    A format that has two names is one candidate, under the first of them.
    """
    found: dict[str, SchemeGroup] = {}
    for name in scheme.candidates:
        for label, each in _sized(name, scheme.options[name].alone(), scheme.group_sizes):
            if each not in found.values():
                found[label] = each
    return found


def together(layer: Subgraph, modules: set[str]) -> list[tuple[LinearSpec, ...]]:
    """The Linears of a layer among `modules`, grouped by what engines run as one.

    A group is a set of fused modules, or all routed experts of the layer: engines hold the experts
    in one kernel, with one format for all their projections.
    """
    leader = {name: group[0] for group in layer.fused for name in group}
    found: dict[str, list[LinearSpec]] = {}
    for linear in layer.linears:
        if linear.name in modules:
            first = "experts" if linear.expert else leader.get(linear.name, linear.name)
            found.setdefault(first, []).append(linear)
    return [tuple(linears) for linears in found.values()]


def fits(linear: LinearSpec, group: SchemeGroup) -> bool:
    """Whether the group sizes of a format divide the width of a module."""
    sizes = [args.group_size for args in (group.weights, group.input_activations) if args]
    return all(size is None or linear.in_features % size == 0 for size in sizes)


def _sized(
    name: str, group: SchemeGroup, sizes: list[int] | None
) -> Iterator[tuple[str, SchemeGroup]]:
    weights = group.weights
    if sizes is None or weights is None or (weights.type, weights.strategy) != ("int", "group"):
        yield name, group
        return
    stem = re.sub(r"_g\d+$", "", name)
    for size in sizes:
        yield f"{stem}_g{size}", replace(group, weights=replace(weights, group_size=size))
