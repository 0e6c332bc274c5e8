"""Translate SpinQuantModifier into `modifier.spinquant`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.registered import BASE, base_options, leave_out

FOUND = "what reads and writes the residual stream is found, and proven on a small model"
UNNEEDED = {
    "precision": "rotations are computed in float64",
    "mappings": FOUND,
    "norm_mappings": FOUND,
}
"""Options that have no meaning here, and why."""
TAKEN = ("rotations", "transform_type", "transform_block_size")
REFUSED = {
    "randomize": "llm-compressor refuses it too",
    "learnable": "rotations are not learned, neither here nor by llm-compressor",
}
ONLINE = (
    "it is computed while the model runs, and no loader of checkpoints here applies it; say "
    "rotations: [R1, R2], which are folded into weights"
)
PLACES = ("weight_input", "weight_output")
"""Where compressed-tensors' transforms are folded into weights; elsewhere they are online."""


def modifier(entry: Entry, findings: Findings) -> dict[str, Any]:
    """The config of the modifier; what it cannot do is recorded."""
    options = entry.options
    known = (*TAKEN, *REFUSED, *UNNEEDED, "transform_config", *BASE)
    findings.unknown(entry.path, options, known)
    for name in TAKEN:
        findings.plain(join(entry.path, name), options.get(name))
    base_options(entry, findings)
    leave_out(entry, UNNEEDED, findings)
    for name, why in REFUSED.items():
        if options.get(name):
            findings.cannot(join(entry.path, name), why)
    _same(entry, findings)
    path = join(entry.path, "rotations")
    given = options.get("rotations")
    rotations = ["R1", "R2"] if given is None else [r.upper() for r in findings.texts(path, given)]
    for name in rotations:
        if name in ("R3", "R4"):
            findings.cannot(path, f"{name}: {ONLINE}")
    return {
        "kind": "spinquant",
        "rotations": rotations,
        "transform_type": options.get("transform_type") or "hadamard",
        "block_size": options.get("transform_block_size"),
    }


def _same(entry: Entry, findings: Findings) -> None:
    """Note a transform_config, which llm-compressor makes of the other options and writes too.

    One that says something else, or places a transform outside of weights, is a problem.
    """
    config = entry.options.get("transform_config")
    if config is None:
        return
    path = join(entry.path, "transform_config")
    asked = [str(name).upper() for name in entry.options.get("rotations") or ("R1", "R2")]
    kind = entry.options.get("transform_type") or "hadamard"
    groups = findings.mapping(path, findings.mapping(path, config).get("config_groups") or {})
    for name, scheme in groups.items():
        here = join(path, f"config_groups.{name}")
        if not isinstance(scheme, Mapping) or name not in asked:
            findings.cannot(here, f"rotations and transform_type say {shown(asked)}, {shown(kind)}")
            continue
        if scheme.get("type", "hadamard") != kind or scheme.get("randomize"):
            findings.cannot(here, f"{shown(scheme.get('type'))} is not as transform_type says")
        applied = [x for x in scheme.get("apply") or () if isinstance(x, Mapping)]
        online = [str(x.get("location")) for x in applied if x.get("location") not in PLACES]
        if online:
            findings.cannot(here, f"{online[0]}: {ONLINE}")
    findings.unneeded(path, "it says what the other options say")
