"""Collecting names for completion: Hydra composes the config of the words before the cursor."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.completion.names import Files, Names, choosing
from pipeline.config.called import COMPOSITION
from pipeline.config.checked_loader import checked
from pipeline.config.primary import PrimaryConfig, at_home, primary_config
from pipeline.config.searchpath import register
from pipeline.errors import UserError

PATHS = ("path", "dir", "file", "files", "include_path", "python", "recipe", "checkpoint")
"""Last parts of keys whose values are files or folders."""
RUN_FOLDERS = ("report.run", "report.sweep")
_LISTED = re.compile(r"\b(?:one of|from) (?P<all>[\w-]+(?:, [\w-]+)*)$")
"""How the checks of config classes name a closed set."""


def names_of(words: Sequence[str]) -> tuple[Names, Files]:
    """Groups with their options, keys and flags of a command line, and the files they come from."""
    with loader_for(words) as (loader, given):
        groups = dict(_groups(loader, "", given))
        keys = list(_keys(composed(loader, given, groups)))
        files = _files(loader)
    flags = [flag for each in get_args_parser()._actions for flag in each.option_strings]
    return {"groups": groups, "keys": keys, "flags": flags}, files


def values_of(words: Sequence[str], key: str) -> tuple[Names, Files]:
    """What a key may be set to, as far as there is a list of it; else the value that it has."""
    if key.rpartition(".")[2] in PATHS or key in RUN_FOLDERS:
        return {"values": [], "paths": True}, []
    with loader_for(words) as (loader, given):
        config = composed(loader, given, dict(_groups(loader, "", given)))
        files = _files(loader)
    found, modules = allowed(tuple(key.split(".")), config)
    return {"values": found, "paths": False}, [*files, *modules]


def allowed(key: tuple[str, ...], config: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The values of a closed set, or the present value, and the source files of its class.

    `config` is a composed config, its references as they are written.
    """
    from pipeline.config.key_help import place_of
    from pipeline.config.root import MODES
    from pipeline.config.root_schema import RootConfig
    from pipeline.machine.devices import DEVICES
    from pipeline.modes.explain import ABSENT, plain_of
    from pipeline.registry import Registry

    if key == ("mode",):
        return list(MODES), []
    if key == ("device",):
        return list(DEVICES), []
    registry = Registry.load()
    plain = plain_of({name: value for name, value in config.items() if name != "hydra"})
    place = place_of(key, plain, RootConfig, registry)
    now: Any = config
    for step in key:
        now = now.get(step, ABSENT) if isinstance(now, dict) else ABSENT
    if place is None:
        return ["true", "false"] if isinstance(now, bool) else _present(now), []
    modules = [str(sys.modules[base.__module__].__file__) for base in place.cls.__mro__[:-1]]
    group = place.field.metadata.get("component") or place.field.metadata.get("components")
    if group is not None:
        return list(registry.kinds(group)) if key[-1] == "kind" else [], modules
    if place.name != key[-1]:  # inside a mapping or a list that takes anything
        return _present(now), modules
    hints = {place.hint, *get_args(place.hint)}
    found = ["true", "false"] if bool in hints else []
    for text in place.allowed(registry):
        if listed := _LISTED.search(text):
            found += listed["all"].split(", ")
    if not found:
        return _present(now), modules
    if type(None) in hints:
        found.append("null")
    return list(dict.fromkeys(found)), modules


def _present(value: Any) -> list[str]:
    """The value a key has now, if it is short and needs no quotes."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        return []
    text = "null" if value is None else str(value)
    return [text] if re.fullmatch(r"[\w./:@+-]+", text) else []


@contextmanager
def loader_for(words: Sequence[str]) -> Iterator[tuple[ConfigLoaderImpl, PrimaryConfig]]:
    """Hydra's config loader as a command of these words has it."""
    register()
    given = primary_config([at_home(word) for word in choosing(words)])
    with checked(), given.initialized():
        yield cast(ConfigLoaderImpl, GlobalHydra.instance().config_loader()), given


def composed(
    loader: ConfigLoaderImpl, given: PrimaryConfig, groups: dict[str, list[str]]
) -> dict[str, Any]:
    """The composed config; where the words are no whole command yet, that of the choices in it.

    Raises the errors of composing where that fails too.
    """
    chosen = [w for w in given.overrides if w.lstrip("+").partition("=")[0] in groups]
    for overrides in (list(given.overrides), chosen, []):
        try:
            cfg = loader.load_configuration(given.name, overrides, RunMode.RUN)
        except (UserError, *COMPOSITION):
            if not overrides:
                raise
        else:
            return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    raise AssertionError("the last try has no overrides")


def _groups(
    loader: ConfigLoaderImpl, parent: str, given: PrimaryConfig
) -> Iterator[tuple[str, list[str]]]:
    """Every group below a parent, with its options."""
    overrides = [word for word in given.overrides if "searchpath" in word]
    for name in loader.get_group_options(parent, ObjectType.GROUP, given.name, overrides):
        group = f"{parent}/{name}" if parent else name
        options = loader.get_group_options(group, ObjectType.CONFIG, given.name, overrides)
        if options:
            yield group, list(options)
        yield from _groups(loader, group, given)


def _keys(config: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in config.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{key}.")
        else:
            yield key


def _files(loader: ConfigLoaderImpl) -> list[str]:
    """The folders of the search path with all config files in them."""
    found: list[str] = []
    for source in loader.get_sources():
        if source.scheme() == "file":
            folders = [source.path]
        elif source.scheme() == "pkg" and not source.path.startswith("hydra"):
            spec = find_spec(source.path.partition("/")[0])
            folders = list((spec and spec.submodule_search_locations) or ())
        else:
            folders = []
        for folder in map(Path, folders):
            found.append(str(folder))
            found += (str(each) for each in folder.rglob("*") if _config(each))
    return found


def _config(path: Path) -> bool:
    return path.suffix in (".yaml", "") and (path.suffix == ".yaml" or path.is_dir())
