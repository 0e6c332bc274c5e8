"""Unused config keys: overrides without effect, and keys that the graph does not reach."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.references import References
from pipeline.errors import UserError
from pipeline.nested import Path, leaves
from pipeline.registry import nearest

_OVERRIDE = re.compile(r"^[+~]*(?P<key>[^=@:]*)")


@dataclass(frozen=True, slots=True)
class WrittenNames:
    """Translation of a path under `graph.nodes` into that of the section it refers to.

    `aliases` maps paths of params that consist of one reference to its target.
    """

    aliases: Mapping[str, str]

    def __call__(self, path: str) -> str:
        for written, section in self.aliases.items():
            if path == written or path.startswith((f"{written}.", f"{written}[")):
                return section + path[len(written) :]
        return path

    def without(self, path: str, error: UserError) -> UserError:
        """An error on several sections at once, without a path that the user did not write."""
        written = f"{path}: "
        if not self.aliases or not error.what.startswith(written):
            return error
        return UserError(error.what.removeprefix(written), remedy=error.remedy)


def without_effect(overrides: Sequence[str], unused: Sequence[str]) -> Iterator[UserError]:
    """A problem for every command-line override in a section that the graph does not use."""
    for given in overrides:
        match = _OVERRIDE.match(given)
        key = match["key"].replace("/", ".") if match else ""
        if _within(key, unused):
            yield UserError(f"{key}: has no effect with this graph", remedy=f"leave out {given!r}")


def unreached(
    raw: Mapping[str, Any], trace: References, *, typed: Collection[str], unused: Sequence[str]
) -> Iterator[UserError]:
    """A problem for every key of a free section that no node of the graph uses.

    `raw` is the unresolved config, `typed` its keys that are not free sections, and `unused` the
    sections (or parts of them) that the graph declares as unused.
    """
    for path, _ in leaves({name: value for name, value in raw.items() if name not in typed}):
        if trace.covers(path) or _within(".".join(path), unused):
            continue
        depth, known = _first_unused(path, trace.reached, typed)
        section = ".".join(path[:depth])
        where = f"the keys of {section} that are used are" if section else "the top-level keys are"
        listed = f"{where} {', '.join(sorted(known))}" if known else ""
        yield UserError(
            f"{'.'.join(path)}: nothing uses such a key with this graph",
            remedy=" ".join(part for part in (nearest(path[depth], known), listed) if part),
        )


def _first_unused(
    path: Path, reached: Collection[Path], typed: Collection[str]
) -> tuple[int, set[str]]:
    """The first step of `path` that is not used, and the names that are used on its level."""
    known = set(typed)
    for depth, step in enumerate(path):
        known |= _used_beside(path[: depth + 1], reached)
        if step not in known:
            return depth, known
        known = set()
    return len(path) - 1, _used_beside(path, reached)


def _used_beside(path: Path, reached: Collection[Path]) -> set[str]:
    """The names on the level of `path` that are reached or lead to something reached."""
    depth = len(path) - 1
    return {p[depth] for p in reached if len(p) > depth and p[:depth] == path[:depth]}


def _within(key: str, sections: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in sections)
