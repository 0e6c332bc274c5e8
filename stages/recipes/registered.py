"""Modifiers that this project does not bring along, but that an installed package may add."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.registry import Registry
from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings

REGISTERED = {
    "AWQModifier": "awq",
    "AutoRoundModifier": "autoround",
    "SparseGPTModifier": "sparsegpt",
    "WandaPruningModifier": "wanda",
    "SpinQuantModifier": "spinquant",
    "QuIPModifier": "quip",
    "REAPPruningModifier": "reap",
    "MagnitudePruningModifier": "magnitude",
    "ConstantPruningModifier": "constant",
    "LogarithmicEqualizationModifier": "logarithmic_equalization",
}
"""llm-compressor's classes -> the kind that a modifier of this name has here."""

BASE = {
    "index": "modifiers run in the order in which they stand",
    "group": "modifiers run in the order in which they stand",
    "start": "there is one pass over the model, not a training",
    "end": "there is one pass over the model, not a training",
    "update": "there is one pass over the model, not a training",
    "requires_calibration_data": "",
}
"""Options that every modifier of llm-compressor has, and why they are not needed ("": no news)."""


def base_options(entry: Entry, found: Findings) -> None:
    """Note the options of every modifier that are not needed here."""
    for name, why in BASE.items():
        if why and entry.options.get(name) is not None:
            found.unneeded(join(entry.path, name), why)


def from_registry(entry: Entry, registry: Registry, found: Findings) -> dict[str, Any] | None:
    """The modifier as one of the registered kind with options of the same names."""
    kind = REGISTERED.get(entry.name)
    known = registry.kinds("modifier")
    if kind not in known:
        found.cannot(entry.path, f"there is no such modifier here; there are {', '.join(known)}")
        return None
    base_options(entry, found)
    cls = registry.get("modifier", kind)
    schema = cls if dataclasses.is_dataclass(cls) else cls.Config
    allowed = {item.name for item in dataclasses.fields(schema) if item.init}
    options = {name: value for name, value in entry.options.items() if name not in BASE}
    found.unknown(entry.path, options, allowed)
    found.plain(entry.path, options)
    return {"kind": kind, **options}
