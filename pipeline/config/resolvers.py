"""OmegaConf resolvers of presswork's configs: `${presswork.NAME:...}`."""

from __future__ import annotations

import textwrap
from weakref import WeakKeyDictionary

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

from pipeline.config.environment import register_environment

WITH_FOLDER = ("run", "sensitivity")
"""The modes that create a run folder."""

WIDTH = 96


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
    """The lines of the groups that are not among `known`: those of installed packages."""
    groups = listed("", ObjectType.GROUP)
    added = [name for name in groups if name not in (*known, "hydra") and listed(name)]
    if not added:
        return ""
    return "\n".join(["\n", "Groups of your own", *(f"  {options(name)}" for name in added)])


def listed(group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
    """The options of a config group, or the groups within it; empty if there is no such group.

    Cached per loader, since Hydra copies its whole repository for every answer.
    """
    loader = GlobalHydra.instance().config_loader()
    known = _cache.setdefault(loader, {})
    if (group, kind) not in known:
        known[group, kind] = list(loader.get_group_options(group, kind))
    return known[group, kind]


_cache: WeakKeyDictionary[ConfigLoader, dict[tuple[str, ObjectType], list[str]]] = (
    WeakKeyDictionary()
)
