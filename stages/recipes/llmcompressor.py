"""Translate llm-compressor's recipe.yaml: stages of groups of modifiers, or modifiers alone.

Accepted are `quant_stage: {quant_modifiers: {GPTQModifier: {...}}}`, the same without stages or
groups, and lists of these; modifiers keep the order of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.config.recipe_import import Translation
from pipeline.registry import Registry
from stages.recipes import awq, pruning, quantization, smoothquant, spinquant
from stages.recipes.document import join, parse
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.registered import REGISTERED, as_section, from_registry

HOLDER = re.compile(r"modifiers|.+_stage(_\d+)?|.+_modifiers")
"""Keys that hold modifiers; a number distinguishes several runs over one model."""

TRANSFORMS: dict[str, Callable[[Entry, Findings], dict[str, Any]]] = {
    "AWQModifier": awq.modifier,
    "SpinQuantModifier": spinquant.modifier,
    **dict.fromkeys(smoothquant.ALGORITHMS, smoothquant.modifier),
    **pruning.MODIFIERS,
}
DENSE: dict[str, Any] = {"weights": None, "input_activations": None, "format": None, "groups": {}}


def translate(text: str, registry: Registry) -> Translation | None:
    """Scheme and modifiers of a recipe; None for a file that is not llm-compressor's.

    Raises UserError with the paths of all parts that cannot be translated.
    """
    document = parse(text)
    if not _claims(document):
        return None
    findings = Findings()
    entries = list(_entries(document, "", findings))
    scheme = DENSE | {"targets": ["Linear"], "ignore": []}
    modifiers: dict[str, dict[str, Any]] = {}
    solvers = [entry for entry in entries if entry.name in quantization.SOLVERS]
    for entry in solvers[1:]:
        findings.cannot(
            entry.path,
            f"it comes after {solvers[0].path}, and only one modifier can choose the weights "
            "(several formats go into its config_groups)",
        )
    for entry in entries:
        modifier: dict[str, Any] | None
        if entry.name in quantization.SOLVERS:
            scheme, modifier = quantization.scheme_and_modifier(entry, findings)
        elif entry.name in TRANSFORMS:
            modifier = TRANSFORMS[entry.name](entry, findings)
        else:
            modifier = from_registry(entry, registry, findings)
        if modifier is not None:
            kind = str(modifier["kind"])
            modifiers[kind if kind not in modifiers else f"{kind}_{len(modifiers)}"] = modifier
    if not entries:
        findings.cannot("the recipe", "there is no modifier in it")
    findings.check()
    return Translation(
        sections={"scheme": scheme, "modifier": as_section(modifiers)},
        notes=tuple(dict.fromkeys(findings.notes)),
    )


def _claims(document: Any) -> bool:
    if isinstance(document, list):
        return bool(document) and all(_claims(item) for item in document)
    if not isinstance(document, dict) or "scheme" in document:
        return False
    return any(HOLDER.fullmatch(key) or _is_modifier(key) for key in document)


def _entries(value: Any, path: str, findings: Findings) -> Iterator[Entry]:
    """The modifiers in the order of the file."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _entries(item, f"{path}[{index}]", findings)
        return
    for key, inner in findings.mapping(path or "the recipe", value).items():
        here = join(path, key)
        if _is_modifier(key):
            yield Entry(path=here, name=key, options=findings.mapping(here, inner or {}))
        elif HOLDER.fullmatch(key):
            yield from _entries(inner, here, findings)
        elif key in ("args", "run_type"):
            findings.unneeded(here, "llm-compressor does not read it either")
        else:
            findings.cannot(here, f"{shown(inner)} belongs to no stage, group or modifier")


def _is_modifier(key: str) -> bool:
    return key.endswith("Modifier") or key in REGISTERED or key in TRANSFORMS
