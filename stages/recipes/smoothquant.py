"""Translate SmoothQuantModifier into `modifier.smoothquant` or `modifier.log_equalization`."""

from __future__ import annotations

from typing import Any

from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.registered import BASE, base_options

KNOWN = ("smoothing_strength", "mappings", "ignore", "algorithm")
ALGORITHMS = {
    "SmoothQuantModifier": "smoothquant",
    "LogarithmicEqualizationModifier": "log_equalization",
}
"""Classes of llm-compressor, and what each does unless `algorithm` says otherwise."""
UNREAD = ("num_calibration_steps", "calibration_function")
NORM = {
    frozenset({"q_proj", "k_proj", "v_proj"}): frozenset({"input_layernorm"}),
    frozenset({"gate_proj", "up_proj"}): frozenset(
        {"post_attention_layernorm", "pre_feedforward_layernorm"}
    ),
}
LINEAR = {
    frozenset({"o_proj"}): frozenset({"v_proj"}),
    frozenset({"down_proj"}): frozenset({"up_proj"}),
}
"""Smoothing pairs that presswork infers, by the last part of names: readers -> what feeds them."""


def modifier(entry: Entry, findings: Findings) -> dict[str, Any]:
    """The config of the modifier; without mappings, the pairs with a norm."""
    findings.unknown(entry.path, entry.options, (*KNOWN, *UNREAD, *BASE))
    findings.plain(entry.path, entry.options)
    base_options(entry, findings)
    for name in UNREAD:
        if entry.options.get(name) is not None:
            findings.unneeded(join(entry.path, name), "llm-compressor does not read it either")
    algorithm = entry.options.get("algorithm") or ALGORITHMS[entry.name]
    if algorithm not in ALGORITHMS.values():
        findings.cannot(
            join(entry.path, "algorithm"),
            f"{shown(algorithm)} is not had, {' and '.join(ALGORITHMS.values())} are",
        )
    ignore = entry.options.get("ignore") or []
    if ignore:
        findings.cannot(join(entry.path, "ignore"), "all pairs of a kind are smoothed, or none")
    mappings = entry.options.get("mappings")
    pairs = ["norm"]
    if mappings is not None:
        pairs = pairs_of(join(entry.path, "mappings"), mappings, findings)
    if algorithm == "log_equalization":
        if entry.options.get("smoothing_strength") is not None:
            findings.unneeded(
                join(entry.path, "smoothing_strength"), "logarithmic equalization has none"
            )
        return {"kind": algorithm, "pairs": pairs}
    return {
        "kind": "smoothquant",
        "smoothing_strength": entry.options.get("smoothing_strength", 0.5),
        "pairs": pairs,
    }


def pairs_of(path: str, mappings: Any, findings: Findings) -> list[str]:
    """The kinds of pairs of which mappings list all; anything else is recorded as a problem."""
    given: set[frozenset[str]] = set()
    kinds = {"norm": NORM, "linear": LINEAR}
    known = NORM | LINEAR
    for index, item in enumerate(mappings if isinstance(mappings, list) else [mappings]):
        if not isinstance(item, list) or len(item) != 2:
            findings.cannot(f"{path}[{index}]", f"{shown(item)} is not [readers, what feeds them]")
            return []
        readers, feeders = (
            frozenset(_leaf(t) for t in findings.texts(path, half)) for half in item
        )
        if not feeders or not feeders <= known.get(readers, frozenset()):
            findings.cannot(
                f"{path}[{index}]",
                f"{shown(item)} is no pair that presswork infers: leave mappings out to smooth "
                "what every norm feeds",
            )
        given.add(readers)
    pairs = [kind for kind, table in kinds.items() if given & table.keys()]
    wanted = {readers for kind in pairs for readers in kinds[kind]}
    if missing := wanted - given:
        names = "; ".join(sorted(", ".join(sorted(readers)) for readers in missing))
        findings.cannot(path, f"these would be smoothed as well, though not mapped: {names}")
    return pairs


def _leaf(pattern: str) -> str:
    """The last part of a module name, given as `re:.*q_proj$` or a full name."""
    return pattern.removeprefix("re:").removesuffix("$").rpartition(".")[2].lstrip("*")
