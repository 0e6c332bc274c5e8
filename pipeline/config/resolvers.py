"""What config files of presswork may compute: `${presswork.NAME:...}`."""

from __future__ import annotations

import textwrap
from weakref import WeakKeyDictionary

from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import OmegaConf

WITH_FOLDER = ("run", "sensitivity")
"""The modes that leave a folder of their own."""

WIDTH = 96


def register_resolvers() -> None:
    """Make them known, in this process."""
    OmegaConf.register_new_resolver("presswork.folder", folder, replace=True)
    OmegaConf.register_new_resolver("presswork.options", options, replace=True)
    OmegaConf.register_new_resolver("presswork.others", others, replace=True)


def folder(mode: str, path: str) -> str:
    """Where a command of this mode leaves its files: nowhere new for those that leave none."""
    return path if mode in WITH_FOLDER else "."


def options(group: str, what: str = "") -> str:
    """A group's lines in the help: its name, what it is for, and its options below."""
    names = ", ".join(listed(group))
    head = f"{group:<12}{what}".rstrip()
    lines = textwrap.wrap(names, WIDTH - 14) or ["(none)"]
    return "\n".join([head, *(f"              {line}" for line in lines)])


def others(*known: str) -> str:
    """The lines of the groups that are not among `known`: those of teams."""
    groups = listed("", ObjectType.GROUP)
    found = [name for name in groups if name not in known and listed(name)]
    found = [name for name in found if name != "hydra"]
    if not found:
        return ""
    return "\n".join(["\n", "Groups of your own", *(f"  {options(name)}" for name in found)])


def listed(group: str, kind: ObjectType = ObjectType.CONFIG) -> list[str]:
    """The options of a group, or the groups within it; none if it is no group.

    Asked once for each loader, since Hydra copies all it knows for every answer.
    """
    loader = GlobalHydra.instance().config_loader()
    known = _known.setdefault(loader, {})
    if (group, kind) not in known:
        known[group, kind] = list(loader.get_group_options(group, kind))
    return known[group, kind]


_known: WeakKeyDictionary[ConfigLoader, dict[tuple[str, ObjectType], list[str]]] = (
    WeakKeyDictionary()
)
