"""Plugin registry: from the `kind` in a config to a class, through entry points."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

OWN = "presswork"
PREFIX = "presswork."
"""Prefix of the entry-point groups `presswork.stages`, `presswork.datasets`, ..."""


def singular(plural: str) -> str:
    """The registry's name of a group of entry points: `stages` -> `stage`, `patches` -> `patch`."""
    if plural.endswith("ies"):
        return f"{plural.removesuffix('ies')}y"
    return plural.removesuffix("es") if plural.endswith("ches") else plural.removesuffix("s")


def nearest(name: str, names: Iterable[str]) -> str:
    """`did you mean X?`, or an empty text if no name is close."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


def choices(name: str, names: Iterable[str]) -> str:
    """A remedy for an unknown name: the nearest one, and all known ones."""
    known = sorted(names)
    listed = f"choose one of {', '.join(known)}" if known else "there is none to choose from"
    return " ".join(part for part in (nearest(name, known), listed) if part)


@dataclass(slots=True)
class Registry:
    """Objects that configs may name, usually classes, by group (`stage`, `dataset`, ...) and kind.

    Entries are loaded when first needed, so a plugin that is not named costs nothing.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Group -> kind -> object, or the entry point from which it is loaded on demand."""
    added: dict[str, dict[str, str]] = field(default_factory=dict)
    """Group -> kind -> `module:name`, of the entries that other distributions provide."""

    @staticmethod
    def load() -> Registry:
        """All entries of this project and of the installed distributions.

        Raises UserError if two distributions provide the same kind.
        """
        found = _all_entries(tuple(sys.path))
        return Registry(
            entries={group: dict(kinds) for group, kinds in found.entries.items()},
            added={group: dict(kinds) for group, kinds in found.added.items()},
        )

    def add(self, entry: EntryPoint) -> None:
        """Add an entry point; raises UserError if its kind is taken by another object."""
        group = singular(entry.group.removeprefix(PREFIX))
        kinds = self.entries.setdefault(group, {})
        known = kinds.setdefault(entry.name, entry)
        if isinstance(known, EntryPoint) and known.value != entry.value:
            raise UserError(
                f"two installed packages give the {group} {entry.name!r}: "
                f"{known.value} and {entry.value}",
                remedy="uninstall one of them, or ask its authors for another name",
            )

    def register(self, group: str, kind: str, cls: type) -> None:
        """Register a class in this process only."""
        self.entries.setdefault(group, {})[kind] = cls

    def kinds(self, group: str) -> tuple[str, ...]:
        """The kinds of a group, sorted."""
        return tuple(sorted(self.entries.get(group, {})))

    def get(self, group: str, kind: str) -> Any:
        """The object of a kind, usually a class.

        Raises UserError for an unknown kind (naming the nearest one), and for an entry that cannot
        be imported.
        """
        kinds: Mapping[str, Any] = self.entries.get(group, {})
        if kind not in kinds:
            raise UserError(f"there is no {group} of kind {kind!r}", remedy=choices(kind, kinds))
        entry = kinds[kind]
        if not isinstance(entry, EntryPoint):
            return entry
        try:
            loaded = entry.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{group} {kind!r} ({entry.value}) cannot be imported: {error}",
                remedy="install what it needs; `pip check` finds packages that do not fit",
            ) from error
        self.entries[group][kind] = loaded
        return loaded


@cache
def _all_entries(path: tuple[str, ...]) -> Registry:
    """The registry to begin with, cached by sys.path: a plan asks for one for each of its nodes."""
    registry = Registry()
    for entry in _own_entries():
        registry.add(entry)
    for entry in _installed_entries(path, skip_own=bool(registry.entries)):
        registry.add(entry)
        if entry.dist is None or entry.dist.name != OWN:
            kinds = registry.added.setdefault(singular(entry.group.removeprefix(PREFIX)), {})
            kinds[entry.name] = entry.value
    return registry


@cache
def _own_entries() -> list[EntryPoint]:
    """The entries of this project's pyproject.toml, in a source checkout only.

    They take precedence there: those recorded when the checkout was installed may be outdated.
    """
    path = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    if project.get("name") != OWN:
        return []
    return [
        EntryPoint(name=name, value=value, group=group)
        for group, names in project.get("entry-points", {}).items()
        if group.startswith(PREFIX)
        for name, value in names.items()
    ]


def _installed_entries(path: tuple[str, ...], *, skip_own: bool) -> list[EntryPoint]:
    """The entries of all installed distributions, without those that only name config folders."""
    del path
    groups = [name for name in entry_points().groups if name.startswith(PREFIX)]
    return [
        entry
        for group in groups
        if group != f"{PREFIX}conf"
        for entry in entry_points(group=group)
        if not (skip_own and entry.dist is not None and entry.dist.name == OWN)
    ]
