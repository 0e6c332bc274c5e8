"""Translate modifiers that presswork does not ship, but a plugin may register."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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

NO_TRAINING = "there is one pass over the model, not a training"
BASE = {
    "index": "modifiers run in the order in which they stand",
    "group": "modifiers run in the order in which they stand",
    "start": NO_TRAINING,
    "end": NO_TRAINING,
    "update": NO_TRAINING,
    "requires_calibration_data": "",
}
"""Options of all llm-compressor modifiers, and why they are not needed ("": not worth a note)."""


def base_options(entry: Entry, findings: Findings) -> None:
    """Record the options common to all modifiers that are not needed in presswork."""
    leave_out(entry, BASE, findings)


def leave_out(entry: Entry, reasons: Mapping[str, str], findings: Findings) -> None:
    """Record the options given of those in `reasons`: option -> why it is not needed ("": none)."""
    for name, why in reasons.items():
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
