"""Resolve a scheme against a model: match targets and ignores, and report what does not fit."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import ManyErrors, UserError
from stages.model.blueprint import EMBEDDING, SHARED
from stages.model.families import score
from stages.schemes.patterns import MARK, matches_pattern
from stages.schemes.scheme import SchemeConfig, SchemeGroup

if TYPE_CHECKING:
    from stages.model.blueprint import Blueprint, LinearSpec

HEAD = "lm_head"
GROUP_SIZES = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """The scheme of one module; `group` is its name in the config."""

    group: str
    scheme: SchemeGroup


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """The quantized modules by name, with the problems and warnings of the scheme."""

    modules: dict[str, Resolved]
    problems: tuple[UserError, ...] = ()
    warnings: tuple[str, ...] = ()

    def checked(self) -> dict[str, Resolved]:
        """The modules; ManyErrors if there are problems."""
        if self.problems:
            raise ManyErrors(self.problems)
        return self.modules


def resolve(scheme: SchemeConfig, blueprint: Blueprint) -> Resolution:
    """Assign a group to every targeted Linear of the decoder layers, and to modules outside them.

    Outside the layers a class name selects only the lm_head (Linear) or the token embedding
    (Embedding): other Linears there, such as those of a vision tower, have to be named.
    """
    groups = dict(scheme.ordered())
    linears = [linear for layer in blueprint.layers for linear in layer.linears]
    ends = blueprint.ends()
    modules: dict[str, Resolved] = {}
    for linear in (*linears, *ends):
        if _ignored(linear, scheme, blueprint):
            continue
        for name, group in groups.items():
            chosen = [target for target in group.targets if selects(target, linear, blueprint)]
            if chosen and _means(chosen, linear, blueprint):
                modules[linear.name] = Resolved(group=name, scheme=group)
                break
    everything = (*linears, *ends)
    problems = [
        *_unmatched(groups, blueprint, everything, linears),
        *_ends_with_inputs(modules, blueprint),
        *_tied_thrice(modules, blueprint),
        *_indivisible(modules, everything),
    ]
    warnings = (
        *_left_outside(groups, scheme, blueprint, modules),
        *_torn(modules, blueprint),
    )
    return Resolution(modules=modules, problems=tuple(problems), warnings=warnings)


def matches(target: str, names: Iterable[str], kind: str) -> bool:
    """Whether `target` is the class `kind` of a module, one of its `names`, or a `re:` pattern.

    `names` are the module's names in the module tree and in the checkpoint.
    """
    return target == kind or matches_name(target, names)


def matches_name(target: str, names: Iterable[str]) -> bool:
    """Whether `target` is one of `names`, or a `re:` pattern that matches the start of one."""
    if target.startswith(MARK):
        return any(matches_pattern(target, name) for name in names)
    return target in names


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """The targets of all groups of a checkpoint, to look up those of many modules."""

    names: frozenset[str]
    patterns: tuple[str, ...]

    @classmethod
    def of(cls, targets: Iterable[str]) -> Targets:
        given = frozenset(targets)
        patterns = sorted(target for target in given if MARK in target)
        return cls(names=given.difference(patterns), patterns=tuple(patterns))

    def choice(self, names: Iterable[str], kind: str) -> str | None:
        """The target that loaders pick: an exact name, a `re:` pattern, then the class."""
        names = tuple(names)
        if exact := self.names.intersection(names):
            return min(exact)
        matching = (target for target in self.patterns if matches_name(target, names))
        return next(matching, kind if kind in self.names else None)


def compact(linears: Iterable[LinearSpec]) -> list[str]:
    """Lines of pattern, count and in_features, one for all modules that differ only in numbers."""
    counts: Counter[tuple[str, int]] = Counter()
    for linear in linears:
        counts[re.sub(r"(?<=\.)\d+(?=\.)", "*", linear.name), linear.in_features] += 1
    return [
        f"{pattern} ({count} {'layer' if count == 1 else 'layers'}, in_features {width})"
        for (pattern, width), count in counts.items()
    ]


def _means(chosen: list[str], linear: LinearSpec, blueprint: Blueprint) -> bool:
    """Whether targets that select a module may do so where it stands; see :func:`resolve`."""
    inside = linear not in blueprint.outside_linears
    return inside or linear.name == blueprint.head or chosen != [linear.kind]


def names_of(linear: LinearSpec, blueprint: Blueprint) -> tuple[str, ...]:
    """The names of a module in the tree and on disk.

    `lm_head` is a name of every model's head, which some call embed_out or output_projection.
    """
    role = (HEAD,) if linear.name == blueprint.head else ()
    return (linear.name, linear.prefix, *role)


def _ignored(linear: LinearSpec, scheme: SchemeConfig, blueprint: Blueprint) -> bool:
    names = names_of(linear, blueprint)
    return any(matches(pattern, names, linear.kind) for pattern in scheme.ignore)


def selects(target: str, linear: LinearSpec, blueprint: Blueprint) -> bool:
    names = names_of(linear, blueprint)
    if linear.bare:
        return False  # the weight is used without a call: no engine would decompress it
    if score(linear.name) or score(linear.prefix):
        return target in names  # a class or a pattern never selects what gives scores
    return matches(target, names, linear.kind)


def _unmatched(
    groups: dict[str, SchemeGroup],
    blueprint: Blueprint,
    everything: tuple[LinearSpec, ...],
    linears: list[LinearSpec],
) -> Iterator[UserError]:
    kinds = Counter(linear.kind for linear in linears)
    for name, group in groups.items():
        for target in group.targets:
            if any(selects(target, linear, blueprint) for linear in everything):
                continue
            known = [*kinds, *(linear.name for linear in everything)]
            near = difflib.get_close_matches(target, known, n=3, cutoff=0.6)
            classes = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
            leaves = ", ".join(sorted({linear.name.rpartition(".")[2] for linear in linears}))
            yield UserError(
                f"target {target!r} of {where(name)} matches no module of this model"
                f"{noted(blueprint)}",
                remedy=f"classes: {classes}; last parts of names: {leaves}"
                + (f"; did you mean {', '.join(near)}?" if near else ""),
            )


def noted(blueprint: Blueprint) -> str:
    """What is known of modules that one might expect to be compressed."""
    return f" ({'; '.join(blueprint.notes)})" if blueprint.notes else ""


def _tied_thrice(modules: dict[str, Resolved], blueprint: Blueprint) -> Iterator[UserError]:
    """A compressed head or embedding of an encoder-decoder whose parts share one embedding.

    Without tying, which compressed tensors do not know, the encoder's embedding has no tensor.
    """
    ends = [name for name in (blueprint.head, blueprint.embedding) if name in modules]
    if ends and blueprint.tied and blueprint.embedding.rpartition(".")[2] == SHARED:
        yield UserError(
            f"{ends[0]} is to be compressed, but encoder, decoder and lm_head share "
            f"{blueprint.embedding}, and loaders tie no compressed tensors",
            remedy="leave lm_head in scheme.ignore",
        )


def _ends_with_inputs(modules: dict[str, Resolved], blueprint: Blueprint) -> Iterator[UserError]:
    """Impossible input quantization: of an embedding, or calibrated outside layers and head."""
    for end in blueprint.ends():
        if end.name not in modules or end.name == blueprint.head:
            continue
        inputs = modules[end.name].scheme.input_activations
        if inputs is not None and end.kind == EMBEDDING:
            yield UserError(
                f"{where(modules[end.name].group)} quantizes the inputs of {end.name}, which are "
                "token ids",
                remedy="give the embedding a group in scheme.groups without input_activations",
            )
        elif inputs is not None and inputs.calibrated:
            yield UserError(
                f"the inputs of {end.name} would have to be calibrated, but calibration sees the "
                "decoder layers and the lm_head only",
                remedy="give it a group in scheme.groups with dynamic or no input_activations, or "
                "put it in scheme.ignore",
            )


def _left_outside(
    groups: dict[str, SchemeGroup],
    scheme: SchemeConfig,
    blueprint: Blueprint,
    modules: dict[str, Resolved],
) -> Iterator[str]:
    targets = [target for group in groups.values() for target in group.targets]
    left = [
        linear
        for linear in blueprint.outside_linears
        if linear.name not in modules
        and any(selects(target, linear, blueprint) for target in targets)
        and not _ignored(linear, scheme, blueprint)
    ]
    if left:
        yield (
            f"{len(left)} Linears outside the decoder layers stay as they are: "
            + "; ".join(compact(left)[:4])
        )


def _indivisible(
    modules: dict[str, Resolved], linears: Iterable[LinearSpec]
) -> Iterator[UserError]:
    wrong: dict[tuple[str, str, int], list[LinearSpec]] = {}
    for linear in linears:
        if linear.name not in modules:
            continue
        resolved = modules[linear.name]
        for part, size, _ in _grouped(resolved.scheme):
            if linear.in_features % size:
                wrong.setdefault((resolved.group, part, size), []).append(linear)
    for (group, part, size), found in wrong.items():
        widths = {
            linear.in_features
            for linear in linears
            if linear.name in modules and modules[linear.name].group == group
        }
        fits = [str(s) for s in GROUP_SIZES if all(width % s == 0 for width in widths)]
        scheme = next(r.scheme for r in modules.values() if r.group == group)
        fixed = any(kind == "float" for _, _, kind in _grouped(scheme))
        yield UserError(
            f"{where(group)}.{part}.group_size is {size}, which does not divide the width of\n"
            + "\n".join(f"    {line}" for line in compact(found)),
            remedy="this number format has no other group size: put the layers in scheme.ignore"
            if fixed
            else f"group sizes that divide all: {', '.join(fits) or 'none'}; or put the layers in "
            "scheme.ignore",
        )


def _grouped(scheme: SchemeGroup) -> Iterator[tuple[str, int, str]]:
    parts = {"weights": scheme.weights, "input_activations": scheme.input_activations}
    for part, args in parts.items():
        if args is not None and args.group_size is not None:
            yield part, args.group_size, args.type


def _torn(modules: dict[str, Resolved], blueprint: Blueprint) -> Iterator[str]:
    for layer in blueprint.layers:
        for names in layer.fused:
            found = {modules[name].group if name in modules else None for name in names}
            if len(found) > 1:
                yield (
                    f"{', '.join(names)} are one module in vLLM and SGLang, but the scheme treats "
                    "them differently: those engines will not load the checkpoint"
                )
                return


def where(group: str) -> str:
    return "scheme" if group == "scheme" else f"scheme.groups.{group}"
