"""Translate llm-compressor's pruning modifiers into presswork's pruners."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.registered import BASE, NO_TRAINING, base_options, leave_out

UNNEEDED = {
    "offload_hessians": "Gram matrices are in the store, not on the device",
    "sequential_update": "layers are always solved one after the other",
    "sequential_targets": "decoder layers are found by themselves",
    "leave_enabled": NO_TRAINING,
    "update_scheduler": NO_TRAINING,
    "scheduler_args": NO_TRAINING,
    "init_sparsity": NO_TRAINING,
}
"""Options that have no meaning here, and why."""

OWL = ("sparsity_profile", "owl_m", "owl_lmbda")
TAKEN = {
    "SparseGPTModifier": ("sparsity", "mask_structure", "block_size", "dampening_frac", *OWL),
    "WandaPruningModifier": ("sparsity", "mask_structure", *OWL),
    "MagnitudePruningModifier": ("final_sparsity", "mask_structure"),
    "ConstantPruningModifier": (),
}
REFUSED = (
    *("targets", "ignore"),
    *("preserve_sparsity_mask", "apply_globally"),
)
KINDS = {
    "SparseGPTModifier": "sparsegpt",
    "WandaPruningModifier": "wanda",
    "MagnitudePruningModifier": "magnitude",
    "ConstantPruningModifier": "constant",
}
SAME_MODULES = "what is pruned is what the scheme quantizes in the decoder layers"


def modifier(entry: Entry, findings: Findings) -> dict[str, Any]:
    """The config of the pruner; what it cannot do is recorded."""
    options, taken = entry.options, TAKEN[entry.name]
    findings.unknown(entry.path, options, (*taken, *REFUSED, *UNNEEDED, *BASE))
    findings.plain(entry.path, options)
    base_options(entry, findings)
    leave_out(entry, UNNEEDED, findings)
    _refuse(entry.path, options, findings)
    found = {name: options[name] for name in taken if options.get(name) is not None}
    if "final_sparsity" in found:
        found["sparsity"] = found.pop("final_sparsity")
    if isinstance(found.get("sparsity_profile"), str):
        found["sparsity_profile"] = found["sparsity_profile"].lower()
    if found.get("mask_structure") == "unstructured":
        found["mask_structure"] = "0:0"
    sparsity = found.get("sparsity")
    if sparsity is not None and not isinstance(sparsity, int | float):
        findings.cannot(
            join(entry.path, "sparsity"), f"{shown(sparsity)} is not one number for all layers"
        )
    return {"kind": KINDS[entry.name], **found}


def _refuse(path: str, options: Mapping[str, Any], findings: Findings) -> None:
    targets, ignore = options.get("targets"), options.get("ignore")
    if targets not in (None, "Linear", ["Linear"], "__ALL_PRUNABLE__", ["__ALL_PRUNABLE__"]):
        findings.cannot(join(path, "targets"), f"{shown(targets)}: {SAME_MODULES}")
    if ignore not in (None, [], ["lm_head"], "lm_head", ["re:.*lm_head"]):
        findings.cannot(join(path, "ignore"), f"{shown(ignore)}: {SAME_MODULES}")
    for name in ("preserve_sparsity_mask", "apply_globally"):
        if options.get(name):
            findings.cannot(join(path, name), "every weight is pruned by itself and anew")


MODIFIERS: dict[str, Callable[[Entry, Findings], dict[str, Any]]] = dict.fromkeys(KINDS, modifier)
