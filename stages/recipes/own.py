"""presswork's own recipe.yaml, as `save` writes it beside the weights."""

from __future__ import annotations

from typing import Any

from pipeline.config.recipe_import import Translation
from pipeline.errors import UserError
from pipeline.registry import Registry
from stages.recipes.document import parse
from stages.recipes.findings import Findings, shown

KEYS = ("scheme", "modifiers", "calibration")


def translate(text: str, registry: Registry) -> Translation | None:
    """The scheme and the modifiers of a checkpoint; None for another kind of file.

    What was calibrated with is no part of it: a recipe says how, a dataset with what.
    """
    del registry  # the config is checked against it afterwards, like any other
    document = parse(text)
    if not isinstance(document, dict) or not {"scheme", "modifiers"} <= document.keys():
        return None
    if strange := sorted(document.keys() - set(KEYS)):
        raise UserError(f"{', '.join(strange)}: no part of a recipe", remedy="leave it out")
    found = Findings()
    scheme = found.mapping("scheme", document["scheme"])
    modifiers = _modifiers(document["modifiers"], found)
    found.plain("scheme", scheme)
    found.plain("modifiers", document["modifiers"])
    found.check()
    notes = []
    if document.get("calibration") is not None:
        notes.append("calibration is not needed: what to calibrate with is said by dataset=...")
    return Translation(sections={"scheme": scheme, "modifier": modifiers}, notes=tuple(notes))


def _modifiers(value: Any, found: Findings) -> dict[str, dict[str, Any]]:
    modifiers: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(value if isinstance(value, list) else [value]):
        kind = item.get("kind") if isinstance(item, dict) else None
        if not isinstance(kind, str):
            found.cannot(f"modifiers[{index}]", f"{shown(item)} names no kind of modifier")
            continue
        name = kind if kind not in modifiers else f"{kind}_{index}"
        modifiers[name] = dict(item)
    return modifiers
