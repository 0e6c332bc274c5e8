"""Which modules a target names, as compressed-tensors and the engines read it."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROUTER = re.compile(r"(?:^|\.)(?:gate|router|shared_expert_gate)$|\.router\.[^.]+$|\.gate\.wg$")


def matches(target: str, names: Iterable[str], kind: str) -> bool:
    """Whether `target` names a module: by class `kind`, by full name, or `re:` from its start.

    `names` are the names that the module goes by (in the module tree and in the checkpoint).
    """
    return target == kind or matches_name(target, names)


def matches_name(target: str, names: Iterable[str]) -> bool:
    """Whether `target` is one of `names`, or `re:` and an expression matching one's start."""
    if target.startswith("re:"):
        pattern = re.compile(target[3:])
        return any(pattern.match(name) for name in names)
    return target in names


def is_router(name: str) -> bool:
    """Whether a module chooses experts (or weighs a shared one): engines keep those dense."""
    return ROUTER.search(name) is not None


def loader_choice(names: Iterable[str], kind: str, targets: Iterable[str]) -> str | None:
    """The target that loaders pick among those of all groups: exact name, `re:`, then class."""
    names = tuple(names)
    ordered = sorted(targets, key=lambda target: ("re:" in target, target))
    for target in ordered:
        if matches_name(target, names):
            return target
    return next((target for target in ordered if target == kind), None)
