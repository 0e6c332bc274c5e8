"""Translate modifiers that have options of the same names here, such as those of plugins."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.registry import Registry
from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings

REGISTERED = {
    "QuIPModifier": "quip",
    "REAPPruningModifier": "reap",
}
"""llm-compressor's classes -> the kinds of such modifiers in presswork."""

UNNEEDED = {
    "REAPPruningModifier": {"report_path": "result.json and report.html tell which experts stay"}
}
"""Class -> options that have no meaning here, and why."""
ALL_LAYERS = {
    "ignore": "config.json has one number of experts for all layers, so that none can be left out"
}
"""Options of REAPPruningModifier that cannot be honoured, and why."""

NODES = ("reap",)
"""Kinds whose shipped option adds nodes to the graph: conf/modifier/<kind>.yaml."""
WHY = {
    "quip": "its rotations u and v run with the model, and no loader of checkpoints here applies "
    "transform_config; modifier=spinquant folds its rotations into weights",
}
"""Why there is no such kind, where it could be expected."""

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
        why = f" ({WHY[kind]})" if kind in WHY else ""
        told = f"there is no such modifier here{why}; there are {', '.join(known)}"
        findings.cannot(entry.path, told)
        return None
    base_options(entry, findings)
    unneeded = UNNEEDED.get(entry.name, {})
    leave_out(entry, unneeded, findings)
    cls = registry.get("modifier", kind)
    schema = cls if dataclasses.is_dataclass(cls) else cls.Config
    allowed = {item.name for item in dataclasses.fields(schema) if item.init}
    left_out = (*BASE, *unneeded)
    options = {name: value for name, value in entry.options.items() if name not in left_out}
    if kind == "reap" and "ignore" not in allowed:
        for name, why in ALL_LAYERS.items():
            if options.pop(name, None):
                findings.cannot(join(entry.path, name), why)
    findings.unknown(entry.path, options, allowed)
    findings.plain(entry.path, options)
    return {"kind": kind, **options}


def as_section(modifiers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Modifiers in order as the content of config group `modifier`.

    Of those whose shipped option adds nodes to the graph that option is taken, and its values
    replaced.
    """
    shipped = [kind for kind in NODES if kind in modifiers]
    return {"defaults": [*shipped, "_self_"], **modifiers} if shipped else dict(modifiers)
