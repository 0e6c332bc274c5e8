"""Turn a choice of formats into a scheme whose targets name exactly the modules of each format."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from stages.schemes.candidates import Units
from stages.schemes.scheme import SchemeConfig, SchemeGroup


def chosen_scheme(scheme: SchemeConfig, units: Units, names: Sequence[str]) -> SchemeConfig:
    """`scheme` with one candidate for every unit; `names` are in the order of the units.

    Modules with a candidate that quantizes no weights stay dense.
    """
    modules: dict[str, list[tuple[str, str]]] = {name: [] for name in units.formats}
    for unit, name in zip(units.units, names, strict=True):
        modules[name] += [(unit.layer, linear.name) for linear in unit.linears]
    chosen = {
        f"chosen_{name}": SchemeGroup(
            weights=group.weights,
            input_activations=group.input_activations,
            format=group.format,
            targets=patterns(modules[name]),
        )
        for name, group in units.formats.items()
        if group.weights is not None and modules[name]
    }
    return replace(
        scheme,
        groups={**scheme.groups, **chosen},
        budget=None,
        candidates=[],
        group_sizes=None,
        options={},
        solver=None,
    )


def patterns(modules: Iterable[tuple[str, str]]) -> list[str]:
    """Targets for (layer, module) names: one pattern for modules that differ only in numbers.

    All experts of a layer share a format, so the pattern matches any expert number.
    """
    layers: dict[tuple[str, str], list[str]] = {}
    exact: list[str] = []
    for layer, module in modules:
        stem, _, index = layer.rpartition(".")
        if not index.isdigit() or not module.startswith(f"{layer}."):
            exact.append(module)
            continue
        tail = re.escape(module.removeprefix(f"{layer}."))
        tail = re.sub(r"(?<=experts\\\.)\d+(?=\\\.)", r"\\d+", tail)
        indices = layers.setdefault((stem, tail), [])
        if index not in indices:
            indices.append(index)
    grouped = [
        rf"re:{re.escape(stem)}\.({'|'.join(indices)})\.{tail}$"
        for (stem, tail), indices in layers.items()
    ]
    return [*grouped, *exact]
