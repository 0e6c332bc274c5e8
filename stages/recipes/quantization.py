"""Translate the modifiers that choose codes into a scheme and a modifier (rtn, gptq, autoround)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.recipes import numbers
from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings, shown
from stages.recipes.groups import Group, Observers, is_class, ordered, read
from stages.recipes.registered import BASE, base_options

SOLVERS = ("QuantizationModifier", "GPTQModifier", "AutoRoundModifier")
MIXIN = (
    "config_groups",
    "targets",
    "ignore",
    "scheme",
    "kv_cache_scheme",
    "weight_observer",
    "input_observer",
    "output_observer",
    "observer",
    "bypass_divisibility_checks",
)
GPTQ = ("block_size", "dampening_frac", "actorder")
AUTOROUND = {
    "iters": "",
    "batch_size": "",
    "lr": "steps here are Adam's, not signed ones: modifier.autoround.lr and scale_lr are theirs",
    "enable_torch_compile": "nothing is compiled",
    "device_ids": "device=cuda:1 says which GPU",
    "disable_opt_rtn": "the solution to start from is GPTQ's",
}
"""Options of AutoRoundModifier, and why they are not needed ("": translated)."""
UNNEEDED = {
    "batched_quantization": "modules that share an input are solved together",
    "sequential_targets": "a model is compressed decoder layer by decoder layer",
    "sequential_update": "calibrate.propagate=compressed, the default, is that",
    "offload_hessians": "statistics lie on disk",
    "offload_device": "weights lie on disk",
}
LEARNED = "scales are those of GPTQ, refitted, and then learned, so no observer chooses them"
DEFAULTS = {"observer": "minmax", "actorder": "static"}
ORDERS = {None: "none", "none": "none", "static": "static", "weight": "static"}


def scheme_and_modifier(entry: Entry, findings: Findings) -> tuple[dict[str, Any], dict[str, Any]]:
    """The `scheme` and the solver of `modifier` for one entry."""
    gptq = entry.name == "GPTQModifier"
    learns = entry.name == "AutoRoundModifier"
    own = GPTQ if gptq else tuple(AUTOROUND) if learns else ()
    known = (*MIXIN, *own, *UNNEEDED, *BASE)
    findings.unknown(entry.path, entry.options, known)
    findings.plain(entry.path, entry.options)
    base_options(entry, findings)
    for name, why in UNNEEDED.items():
        if entry.options.get(name) not in (None, False, "auto"):
            findings.unneeded(join(entry.path, name), why)
    if entry.options.get("bypass_divisibility_checks"):
        findings.unneeded(
            join(entry.path, "bypass_divisibility_checks"),
            "groups that do not divide a width cannot be stored; mode=plan lists them",
        )
    groups = list(read(entry, _observers(entry, findings), findings))
    _unused_observer(entry, groups, findings)
    weights = [group for group in groups if group.content.get("weights") is not None]
    scheme = _scheme(entry, groups, findings)
    if learns:
        for group in weights:
            if group.observer != DEFAULTS["observer"] and entry.options.get("config_groups"):
                findings.unneeded(join(entry.path, f"config_groups.{group.name}"), LEARNED)
        return scheme, _autoround(entry, findings)
    pieces = ordered(weights)
    observers = [group.observer for group in pieces]
    if not gptq:
        options = _per_target(entry, pieces, {"observer": observers}, findings)
        return scheme, {"kind": "rtn", **options, "on_failure": "error"}
    options = _per_target(
        entry,
        pieces,
        {"observer": observers, "actorder": _orders(entry, pieces, findings)},
        findings,
    )
    return scheme, _gptq(entry, options, findings)


def _scheme(entry: Entry, groups: list[Group], findings: Findings) -> dict[str, Any]:
    attention = [group for group in groups if "weights" not in group.content]
    pieces = ordered([group for group in groups if "weights" in group.content])
    for group in pieces if len(pieces) > 1 else ():
        if group.content["weights"] is None:
            findings.cannot(
                entry.path, f"modules that stay dense ({shown(list(group.targets))}) go into ignore"
            )
    last = pieces[-1] if pieces else None
    content = {"weights": None, "input_activations": None, "format": None}
    scheme: dict[str, Any] = {
        **(content if last is None else last.content),
        "targets": ["Linear"] if last is None else list(last.targets),
        "ignore": findings.texts(join(entry.path, "ignore"), entry.options.get("ignore") or []),
        "groups": {
            piece.name: {"targets": list(piece.targets), **piece.content} for piece in pieces[:-1]
        },
    }
    cache = entry.options.get("kv_cache_scheme")
    if cache is not None:
        scheme["kv_cache"] = numbers.states(join(entry.path, "kv_cache_scheme"), cache, findings)
    for group in attention:
        scheme["attention"] = group.content["input_activations"]
    if len(attention) > 1:
        findings.cannot(entry.path, "it has several formats for attention, one is had")
    return scheme


def _orders(entry: Entry, pieces: Sequence[Group], findings: Findings) -> list[str]:
    """The order of columns of each group: its own, or that of the modifier."""
    given, found = entry.options, []
    for group in pieces:
        inner = group.actorder
        order = given.get("actorder", "static") if inner is None else inner
        if inner is not None and given.get("actorder", inner) not in (inner, "static"):
            findings.cannot(join(entry.path, "actorder"), f"config_groups say another: {inner!r}")
        if order not in ORDERS:
            findings.cannot(
                join(entry.path, "actorder"), f"{shown(order)} is not had; static and none are"
            )
        found.append(ORDERS.get(order, "static"))
    return found


def _per_target(
    entry: Entry,
    pieces: Sequence[Group],
    options: Mapping[str, Sequence[str]],
    findings: Findings,
) -> dict[str, Any]:
    """Options of a solver: those of the last group for all, others for the targets before it."""
    common = {name: values[-1] if values else DEFAULTS[name] for name, values in options.items()}
    if all(len(set(values)) < 2 for values in options.values()):
        return common
    entries = []
    for index, group in enumerate(pieces[:-1]):
        own = {name: values[index] for name, values in options.items()}
        named = [target for target in group.targets if not is_class(target)]
        if own != common and len(named) < len(group.targets):
            told = ", ".join(f"{name} {value}" for name, value in own.items())
            findings.cannot(
                entry.path,
                f"{told} for a class of modules, {shown(list(group.targets))}: name them",
            )
        entries += [{"targets": named, **own}] if named else []
    return {**common, "per_target": entries}


def _gptq(entry: Entry, options: Mapping[str, Any], findings: Findings) -> dict[str, Any]:
    """GPTQ as in llm-compressor: scales by the observer alone, codes in one pass."""
    given = entry.options
    findings.notes.append(
        f"{entry.path} becomes modifier.gptq with refit=0 and descent=0, as llm-compressor has "
        f"it; modifier.gptq.observer=gram modifier.gptq.refit=1 modifier.gptq.descent=1, the "
        "defaults here, make the error smaller"
    )
    return {
        "kind": "gptq",
        "block_size": given.get("block_size", 128),
        "dampening_frac": given.get("dampening_frac", 0.01),
        **options,
        "refit": 0,
        "descent": 0,
        "on_failure": "error",
    }


def _autoround(entry: Entry, findings: Findings) -> dict[str, Any]:
    """As many iterations and sequences as in llm-compressor, from GPTQ's solution."""
    for name, why in AUTOROUND.items():
        if why and entry.options.get(name) not in (None, False):
            findings.unneeded(join(entry.path, name), why)
    for name in ("weight_observer", "observer"):
        if entry.options.get(name):
            findings.unneeded(join(entry.path, name), LEARNED)
    findings.notes.append(
        f"{entry.path} becomes modifier.autoround, which starts from GPTQ rather than from "
        "rounding to nearest: 80 iterations of 4 sequences, the defaults here, are often enough"
    )
    return {
        "kind": "autoround",
        "iterations": entry.options.get("iters", 200),
        "batch_size": entry.options.get("batch_size", 8),
    }


def _observers(entry: Entry, findings: Findings) -> Observers:
    """The observers that the modifier names, one by one or in a mapping."""
    given = entry.options
    several = findings.mapping(join(entry.path, "observer"), given.get("observer") or {})
    findings.unknown(join(entry.path, "observer"), several, ("weights", "input", "output"))
    for name, value in (
        ("output_observer", given.get("output_observer")),
        ("observer.output", several.get("output")),
    ):
        if value:
            findings.cannot(
                join(entry.path, name), "it is for outputs, which are not quantized here"
            )
    return Observers(
        weights=several.get("weights") or given.get("weight_observer"),
        inputs=several.get("input") or given.get("input_observer"),
    )


def _unused_observer(entry: Entry, groups: Sequence[Group], findings: Findings) -> None:
    """Note an observer of inputs where no group calibrates any."""
    inputs = [group.content.get("input_activations") for group in groups]
    if any(args is not None and args.get("dynamic", False) is not True for args in inputs):
        return
    several = entry.options.get("observer")
    for name, value in (
        ("input_observer", entry.options.get("input_observer")),
        ("observer.input", several.get("input") if isinstance(several, dict) else None),
    ):
        if value:
            findings.unneeded(join(entry.path, name), "no inputs are calibrated")
