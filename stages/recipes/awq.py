"""Translate AWQModifier into `modifier.awq`."""

from __future__ import annotations

from typing import Any

from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.registered import BASE, base_options
from stages.recipes.smoothquant import pairs_of

KNOWN = ("mappings", "duo_scaling", "n_grid")
UNNEEDED = {
    "offload_device": "no inputs of modules are kept: candidates are judged by Gram matrices"
}
MAPPING = ("smooth_layer", "balance_layers", "activation_hook_target")


def modifier(entry: Entry, findings: Findings) -> dict[str, Any]:
    """The config of `modifier.awq`; without mappings, the pairs of norms and of Linears."""
    findings.unknown(entry.path, entry.options, (*KNOWN, *UNNEEDED, *BASE))
    for name in KNOWN:
        findings.plain(join(entry.path, name), entry.options.get(name))
    base_options(entry, findings)
    for name, why in UNNEEDED.items():
        if name in entry.options:  # a sentinel, where it was not given
            findings.unneeded(join(entry.path, name), why)
    mappings = entry.options.get("mappings")
    pairs = ["norm", "linear"]
    if mappings is not None:
        path = join(entry.path, "mappings")
        pairs = pairs_of(path, _as_lists(path, mappings, findings), findings)
    return {
        "kind": "awq",
        "n_grid": entry.options.get("n_grid", 20),
        "duo_scaling": entry.options.get("duo_scaling", True),
        "pairs": pairs,
    }


def _as_lists(path: str, mappings: Any, findings: Findings) -> list[Any]:
    """Mappings {smooth_layer, balance_layers} as SmoothQuant's: [readers, what feeds them]."""
    found = []
    for index, item in enumerate(mappings if isinstance(mappings, list) else [mappings]):
        here = f"{path}[{index}]"
        if not isinstance(item, dict):
            findings.cannot(here, f"{shown(item)} is no mapping of smooth_layer, balance_layers")
            continue
        findings.unknown(here, item, MAPPING)
        if item.get("activation_hook_target") is not None:
            findings.unneeded(
                join(here, "activation_hook_target"), "modules that see one input share statistics"
            )
        found.append([item.get("balance_layers"), item.get("smooth_layer")])
    return found
