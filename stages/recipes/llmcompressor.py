"""llm-compressor's recipe.yaml: stages of groups of modifiers, or modifiers alone.

Read: `quant_stage: {quant_modifiers: {GPTQModifier: {...}}}`, the same without stages or groups,
and lists of these, in the order in which they stand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.config.recipe_import import Translation
from pipeline.registry import Registry
from stages.recipes import quantization, smoothquant
from stages.recipes.document import join, parse
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.registered import REGISTERED, from_registry

HOLDER = re.compile(r"modifiers|.+_stage(_\d+)?|.+_modifiers")
"""Keys that hold modifiers; a number is what several runs over one model are told apart by."""

TRANSFORMS: dict[str, Callable[[Entry, Findings], dict[str, Any]]] = {
    "SmoothQuantModifier": smoothquant.modifier
}
DENSE: dict[str, Any] = {"weights": None, "input_activations": None, "format": None, "groups": {}}


def translate(text: str, registry: Registry) -> Translation | None:
    """Scheme and modifiers of a recipe; None for a file that is none of llm-compressor's.

    Raises UserError with all that cannot be translated, and where it stands.
    """
    document = parse(text)
    if not _claims(document):
        return None
    found = Findings()
    entries = list(_entries(document, "", found))
    scheme = DENSE | {"targets": ["Linear"], "ignore": []}
    modifiers: dict[str, dict[str, Any]] = {}
    solvers = [entry for entry in entries if entry.name in quantization.SOLVERS]
    for entry in solvers[1:]:
        found.cannot(
            entry.path,
            f"it comes after {solvers[0].path}, and only one modifier can choose the weights "
            "(several formats go into its config_groups)",
        )
    for entry in entries:
        made: dict[str, Any] | None
        if entry.name in quantization.SOLVERS:
            scheme, made = quantization.scheme_and_modifier(entry, found)
        elif entry.name in TRANSFORMS:
            made = TRANSFORMS[entry.name](entry, found)
        else:
            made = from_registry(entry, registry, found)
        if made is not None:
            kind = str(made["kind"])
            modifiers[kind if kind not in modifiers else f"{kind}_{len(modifiers)}"] = made
    if not entries:
        found.cannot("the recipe", "there is no modifier in it")
    found.check()
    return Translation(
        sections={"scheme": scheme, "modifier": modifiers}, notes=tuple(dict.fromkeys(found.notes))
    )


def _claims(document: Any) -> bool:
    if isinstance(document, list):
        return bool(document) and all(_claims(item) for item in document)
    if not isinstance(document, dict) or "scheme" in document:
        return False
    return any(HOLDER.fullmatch(key) or _is_modifier(key) for key in document)


def _entries(value: Any, path: str, found: Findings) -> Iterator[Entry]:
    """The modifiers in the order of the file."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _entries(item, f"{path}[{index}]", found)
        return
    for key, inner in found.mapping(path or "the recipe", value).items():
        here = join(path, key)
        if _is_modifier(key):
            yield Entry(path=here, name=key, options=found.mapping(here, inner or {}))
        elif HOLDER.fullmatch(key):
            yield from _entries(inner, here, found)
        elif key in ("args", "run_type"):
            found.unneeded(here, "llm-compressor does not read it either")
        else:
            found.cannot(here, f"{shown(inner)} belongs to no stage, group or modifier")


def _is_modifier(key: str) -> bool:
    return key.endswith("Modifier") or key in REGISTERED
