"""Translate presswork's own recipe.yaml, which `save` writes beside the weights."""

from __future__ import annotations

from typing import Any

from pipeline.config.recipe_import import Translation
from pipeline.errors import UserError
from pipeline.registry import Registry
from stages.recipes.document import parse
from stages.recipes.findings import Findings, shown
from stages.recipes.registered import as_section

KEYS = ("scheme", "modifiers", "calibration")


def translate(text: str, registry: Registry) -> Translation | None:
    """The scheme and the modifiers of a checkpoint; None for another kind of file.

    The calibration data is left out: it belongs to `dataset`, not to a recipe.
    """
    del registry  # the config is checked against it afterwards, like any other
    document = parse(text)
    if not isinstance(document, dict) or not {"scheme", "modifiers"} <= document.keys():
        return None
    if strange := sorted(document.keys() - set(KEYS)):
        raise UserError(f"{', '.join(strange)}: no part of a recipe", remedy="leave it out")
    findings = Findings()
    scheme = findings.mapping("scheme", document["scheme"])
    modifiers = _modifiers(document["modifiers"], findings)
    findings.plain("scheme", scheme)
    findings.plain("modifiers", document["modifiers"])
    findings.check()
    notes = []
    if document.get("calibration") is not None:
        notes.append("calibration is not needed: what to calibrate with is said by dataset=...")
    return Translation(
        sections={"scheme": scheme, "modifier": as_section(modifiers)}, notes=tuple(notes)
    )


def _modifiers(value: Any, findings: Findings) -> dict[str, dict[str, Any]]:
    modifiers: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        kind = item.get("kind") if isinstance(item, dict) else None
        if not isinstance(kind, str):
            findings.cannot(f"modifiers[{index}]", f"{shown(item)} names no kind of modifier")
            continue
        name = kind if kind not in modifiers else f"{kind}_{index}"
        modifiers[name] = dict(item)
    return modifiers
