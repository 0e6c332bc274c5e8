"""Translate `scheme` and `config_groups` of a recipe: number formats and their targets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from pipeline.config.searchpath import own_configs
from stages.recipes import numbers
from stages.recipes.document import join
from stages.recipes.findings import Entry, Findings, shown

PRESETS = frozenset(
    (
        *(f"W{bits}A16" for bits in range(2, 9)),
        *(f"W{bits}A8" for bits in range(2, 9)),
        *("W2A4", "W3A4", "W4A4", "W4A16_ASYM", "W4AFP8", "INT8", "UNQUANTIZED"),
        *("FP8", "FP8_DYNAMIC", "FP8_BLOCK", "NVFP4", "NVFP4A16"),
        *("MXFP4", "MXFP4A16", "MXFP8", "MXFP8A16"),
        *("MXFP4XFP8", "MXFP6A16", "MXFP6A8"),  # from compressed-tensors 0.20 on
    )
)
"""compressed-tensors' presets; `conf/scheme` has each under its name in lower case."""

KNOWN = ("targets", "weights", "input_activations", "output_activations", "format")
ATTENTION = re.compile(r".*(?:Attention|attn)\$?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Observers:
    """The observers of a modifier, which override those of its formats; None to override none."""

    weights: str | None = None
    inputs: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """One number format and its targets; `content` has weights, input_activations and format."""

    name: str
    targets: tuple[str, ...]
    content: Mapping[str, Any]
    observer: str = "minmax"
    actorder: str | None = None


def read(entry: Entry, observers: Observers, findings: Findings) -> Iterator[Group]:
    """The groups of a modifier; those that quantize attention have only input_activations."""
    scheme, groups = entry.options.get("scheme"), entry.options.get("config_groups")
    targets = findings.texts(
        join(entry.path, "targets"), entry.options.get("targets") or ["Linear"]
    )
    if scheme is not None and groups is not None:
        findings.cannot(entry.path, "it has both scheme and config_groups")
    elif scheme is not None:
        here = join(entry.path, "scheme")
        named = {scheme: targets} if isinstance(scheme, str) else findings.mapping(here, scheme)
        for index, (name, wanted) in enumerate(named.items()):
            yield from _preset(
                f"group_{index}", name, findings.texts(here, wanted), here, observers, findings
            )
    elif groups is not None:
        for name, value in findings.mapping(join(entry.path, "config_groups"), groups).items():
            here = join(entry.path, f"config_groups.{name}")
            yield from _group(name, findings.mapping(here, value), here, observers, findings)
    elif entry.options.get("kv_cache_scheme") is None:
        findings.cannot(entry.path, "it says neither scheme nor config_groups")


def ordered(groups: list[Group]) -> list[Group]:
    """The groups in an order in which the first match counts, as in presswork.

    In llm-compressor a full name wins over an expression and that over a class, whatever group they
    are in, and expressions are tried in alphabetical order. A group whose targets are not
    neighbours in that order is split.
    """
    if len(groups) < 2:
        return groups
    flat = [(_rank(target), target, group) for group in groups for target in group.targets]
    flat.sort(key=lambda item: item[:2])
    pieces: list[Group] = []
    for group, items in groupby((item for item in flat), key=lambda item: item[2]):
        count = sum(piece.content is group.content for piece in pieces)
        name = group.name if not count else f"{group.name}_{count + 1}"
        targets = tuple(target for _, target, _ in items)
        pieces.append(
            Group(
                name=name,
                targets=targets,
                content=group.content,
                observer=group.observer,
                actorder=group.actorder,
            )
        )
    return pieces


def _preset(
    group: str, name: str, targets: list[str], path: str, observers: Observers, findings: Findings
) -> Iterator[Group]:
    if name.upper() not in PRESETS:
        findings.cannot(path, f"{shown(name)} is no preset; they are {', '.join(sorted(PRESETS))}")
        return
    text = (own_configs() / "scheme" / f"{name.lower()}.yaml").read_text(encoding="utf-8")
    preset = yaml.safe_load(text)
    content = {key: preset[key] for key in ("weights", "input_activations", "format")}
    override, inputs = observers.inputs, content["input_activations"]
    if override is not None and inputs is not None and inputs.get("dynamic", False) is not True:
        content["input_activations"] = numbers.inputs(
            join(path, name), inputs | {"observer": override}, None, findings
        )
    observer = numbers.weights(join(path, name), {}, observers.weights, findings).observer
    yield Group(name=group, targets=tuple(targets), content=content, observer=observer)


def _group(
    name: str, value: dict[str, Any], path: str, observers: Observers, findings: Findings
) -> Iterator[Group]:
    findings.unknown(path, value, KNOWN)
    targets = tuple(findings.texts(join(path, "targets"), value.get("targets", [])))
    if value.get("output_activations") is not None:
        findings.cannot(
            join(path, "output_activations"), "outputs of modules are not quantized here"
        )
    layout = value.get("format")
    given = value.get("input_activations")
    if value.get("weights") is None:
        if given is not None and targets and all(ATTENTION.fullmatch(t) for t in targets):
            state = numbers.states(join(path, "input_activations"), given, findings)
            yield Group(name=name, targets=targets, content={"input_activations": state})
        else:
            findings.cannot(path, "it has no weights; modules that stay dense go into ignore")
        return
    weight = numbers.weights(join(path, "weights"), value["weights"], observers.weights, findings)
    args: dict[str, Any] | None = None
    if given is not None:
        args = numbers.inputs(join(path, "input_activations"), given, observers.inputs, findings)
    yield Group(
        name=name,
        targets=targets,
        content={"weights": weight.args, "input_activations": args, "format": layout},
        observer=weight.observer,
        actorder=weight.actorder,
    )


def _rank(target: str) -> int:
    """Full names first, then expressions, then classes (one word, with a capital)."""
    if target.startswith("re:"):
        return 1
    return 2 if is_class(target) else 0


def is_class(target: str) -> bool:
    """Whether a target is the class of modules: one word with a capital."""
    return "." not in target and target[:1].isupper()
