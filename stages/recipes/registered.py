"""Translate modifiers that presswork does not ship, but a plugin may register."""

from __future__ import annotations

import dataclasses
from typing import Any

from pipeline.registry import Registry
from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings

REGISTERED = {
    "SpinQuantModifier": "spinquant",
    "QuIPModifier": "quip",
    "REAPPruningModifier": "reap",
}
"""llm-compressor's classes -> the kinds of such modifiers in presswork."""

BASE = {
    "index": "modifiers run in the order in which they stand",
    "group": "modifiers run in the order in which they stand",
    "start": "there is one pass over the model, not a training",
    "end": "there is one pass over the model, not a training",
    "update": "there is one pass over the model, not a training",
    "requires_calibration_data": "",
}
"""Options of all llm-compressor modifiers, and why they are not needed ("": not worth a note)."""


def base_options(entry: Entry, findings: Findings) -> None:
    """Record the options common to all modifiers that are not needed in presswork."""
    for name, why in BASE.items():
        if why and entry.options.get(name) is not None:
            findings.unneeded(join(entry.path, name), why)


def from_registry(entry: Entry, registry: Registry, findings: Findings) -> dict[str, Any] | None:
    """The modifier as a registered kind that has options of the same names."""
    kind = REGISTERED.get(entry.name)
    known = registry.kinds("modifier")
    if kind not in known:
        findings.cannot(entry.path, f"there is no such modifier here; there are {', '.join(known)}")
        return None
    base_options(entry, findings)
    cls = registry.get("modifier", kind)
    schema = cls if dataclasses.is_dataclass(cls) else cls.Config
    allowed = {item.name for item in dataclasses.fields(schema) if item.init}
    options = {name: value for name, value in entry.options.items() if name not in BASE}
    findings.unknown(entry.path, options, allowed)
    findings.plain(entry.path, options)
    return {"kind": kind, **options}
