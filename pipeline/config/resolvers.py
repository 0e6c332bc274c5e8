"""OmegaConf resolvers of presswork's configs: `${presswork.NAME:...}`."""

from __future__ import annotations

import textwrap
from typing import Any, cast
from weakref import WeakKeyDictionary

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from pipeline.config.environment import register_environment

WITH_FOLDER = ("run", "sensitivity", "inspect", "diff")
"""The modes that create a run folder."""

WIDTH = 96
MOST_GROUPS = 200
"""Groups of one's own that the help lists."""


def register_resolvers() -> None:
    """Register the resolvers in this process."""
    register_environment()
    OmegaConf.register_new_resolver("presswork.folder", folder, replace=True)
    OmegaConf.register_new_resolver("presswork.options", options, replace=True)
    OmegaConf.register_new_resolver("presswork.others", others, replace=True)


def folder(mode: str, path: str) -> str:
    """The run folder of a command: `path`, or the current folder for modes that write no files."""
    return path if mode in WITH_FOLDER else "."


def options(group: str, what: str = "") -> str:
    """A config group's lines in the help: its name and purpose, and its options below."""
    names = ", ".join(listed(group))
    head = f"{group:<12}{what}".rstrip()
    lines = textwrap.wrap(names, WIDTH - 14) or ["(none)"]
    return "\n".join([head, *(f"              {line}" for line in lines)])


def others(*known: str) -> str:
    """The lines of the groups that are not among `known`: those of installed packages.

    Of very many only the first, as every command composes this text.
    """
    names = [n for n in listed("", ObjectType.GROUP) if n not in (*known, "hydra")]
    lines = [f"  {options(name)}" for name in names[:MOST_GROUPS] if listed(name)]
    if len(names) > MOST_GROUPS:
        lines.append(f"  and {len(names) - MOST_GROUPS} more")
    return "\n".join(["\n", "Groups of your own", *lines]) if lines else ""


def listed(group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
    """The options of a config group, or the groups within it; empty if there is no such group.

    Cached per loader. Its repository is asked, as the loader copies it whole for every answer.
    """
    loader = GlobalHydra.instance().config_loader()
    known = _cache.setdefault(loader, {})
    if (group, kind) not in known:
        known[group, kind] = list(cast(Any, loader).repository.get_group_options(group, kind))
    return known[group, kind]


_cache: WeakKeyDictionary[ConfigLoader, dict[tuple[str, ObjectType], list[str]]] = (
    WeakKeyDictionary()
)
