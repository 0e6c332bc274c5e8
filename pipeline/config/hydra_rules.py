"""Rules on a composed config: YAML chooses among what is installed and makes Hydra run no code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.nested import Path, leaves

TARGET = "_target_"
INSTANTIATED = {"launcher": Launcher, "sweeper": Sweeper}
"""The parts of `hydra` that Hydra makes objects of."""
LOGGING = ("job_logging", "hydra_logging")
REACHING = ("setup", "additional_parameters", "runtime_env", "address", "custom_search_space")
"""Keys of launchers and sweepers that hold commands, addresses or names of functions."""
ADDRESSES = ("uri", "url", "base_url", "space", "host", "endpoint", "address")
"""Keys of trackers that say where results are sent to."""
SENDING = {
    "tracker": (ADDRESSES, "says where results are sent"),
    "environment": (("published",), "lists variables whose values are published"),
    "gc": (("dry_run",), "frees stored results"),
    "eval": (("include_path", "vllm.python"), "names code that is run"),
}
"""Section -> keys, and what a value of theirs does, unless it is empty or true."""

_INNER = re.compile(r"\$\{([^${}]*)")
_LATER = re.compile(
    r"\s*(hydra\.|hydra:)(job|runtime|sweep|run)\.[\w.]+\s*|\s*(now|oc\.env|presswork\.folder):.*"
)
"""References that give text, and only once jobs start."""

_PUBLISHED = "presswork's stages, trackers and report sections come from installed packages"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A key that is refused, always or only where a file that is not the user's own sets it.

    `replaced`: a value on the command line takes the place of all others, as no mapping does.
    """

    path: Path
    what: str
    remedy: str
    always: bool = True
    replaced: bool = False


def refused(cfg: DictConfig, shipped_logging: Callable[[str], list[Any]]) -> Iterator[Refused]:
    """Every key of a composed config by which Hydra would run code that is not installed for it.

    `shipped_logging` gives the installed options of a group, without levels.
    """
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    own = raw["hydra"]
    verbose = own.get("verbose")
    if not isinstance(verbose, bool | str | list):
        yield Refused(
            path=("hydra", "verbose"),
            what=f"is {verbose!r}",
            remedy="give true, false, or names of loggers",
        )
    if own.get("callbacks"):
        yield Refused(
            path=("hydra", "callbacks"),
            what="names code to run, which configs cannot",
            remedy=f"leave it out; {_PUBLISHED}",
        )
    for name in LOGGING:
        if not _plain(own.get(name)) and logging_without_levels(own[name]) not in shipped_logging(
            f"hydra/{name}"
        ):
            yield Refused(
                path=("hydra", name),
                what="is none of the installed options, and logging can name code to run",
                remedy=f"choose one, such as hydra/{name}=none or hydra/{name}=default; levels "
                "of loggers may be set",
            )
    yield from _targets(raw)
    for name in INSTANTIATED:
        yield from _made(cfg, ("hydra", name), own.get(name))
    yield from _reaching(own)
    yield from _sending(raw)


def logging_without_levels(config: Any) -> Any:
    """A logging config without its levels, which may differ from the installed option's."""
    if not isinstance(config, Mapping):
        return config
    bare = dict(config)
    bare.pop("loggers", None)
    if isinstance(loggers := config.get("loggers"), Mapping):
        beyond = {name: _unlevelled(value) for name, value in loggers.items()}
        bare["loggers"] = {name: value for name, value in beyond.items() if value}
    bare["loggers"] = bare.get("loggers") or {}
    bare["root"] = _unlevelled(bare.get("root")) or {}
    return bare


def _unlevelled(logger: Any) -> Any:
    if not isinstance(logger, Mapping):
        return logger
    return {name: value for name, value in logger.items() if name != "level"}


def _plain(config: Any) -> bool:
    """Whether a logging config is that of option `none`, that of presswork: no handler at all."""
    return bool(config == {"version": 1, "root": None, "disable_existing_loggers": False})


def _targets(raw: Mapping[str, Any]) -> Iterator[Refused]:
    """Every `_target_` that is none of an installed launcher or sweeper."""
    allowed: dict[str, frozenset[str]] = {}
    for path, value in leaves(raw):
        if TARGET not in path:
            continue
        part = path[1] if path[0] == "hydra" and len(path) > 2 else ""
        if part in INSTANTIATED and path[-1] == TARGET:
            if part not in allowed:
                allowed[part] = _classes(INSTANTIATED[part]) | _nested(part)
            known = _classes(INSTANTIATED[part]) if len(path) == 3 else allowed[part]
            if value in known or value is None or value == "???":
                continue
        yield Refused(
            path=path,
            what=f"is {value!r}: configs name no classes or functions",
            remedy="choose an installed one: hydra/launcher=NAME, hydra/sweeper=NAME; "
            f"{_PUBLISHED}",
        )


def _classes(kind: type[Plugin]) -> frozenset[str]:
    return frozenset(f"{c.__module__}.{c.__qualname__}" for c in Plugins.instance().discover(kind))


def _nested(part: str) -> frozenset[str]:
    """What the installed options of a group name below themselves, such as Optuna's samplers."""
    found: set[str] = set()
    folders = [ConfigStore.instance().repo.get("hydra", {}).get(part, {})]
    while folders:
        for item in folders.pop().values():
            if isinstance(item, ConfigNode):
                content = OmegaConf.to_container(item.node, resolve=False)
                found |= {str(v) for p, v in leaves(content) if p[-1:] == (TARGET,)}
            else:
                folders.append(item)
    return frozenset(found)


def _made(cfg: DictConfig, path: Path, raw: Any) -> Iterator[Refused]:
    """Keys whose references make a `_target_` (`oc.create`), or cannot be known beforehand."""
    for inner, leaf in leaves(raw, path):
        if not isinstance(leaf, str) or "${" not in leaf:
            continue
        try:
            value: Any = cfg
            for step in inner:
                value = value[int(step)] if OmegaConf.is_list(value) else value[step]
            content = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            bad = any(TARGET in where for where, _ in leaves(content))
        except (OmegaConfBaseException, KeyError, ValueError, TypeError):
            bad = not all(_LATER.fullmatch(text) for text in _INNER.findall(leaf))
        if bad:
            yield Refused(
                path=inner,
                what=f"is {leaf!r}, which can name code to run",
                remedy="write the value itself",
            )


def _reaching(own: Mapping[str, Any]) -> Iterator[Refused]:
    """Keys with commands, addresses and variables: for the user and installed packages to set."""
    keys: list[tuple[Path, Any]] = [(("hydra", "job", "env_set"), own["job"].get("env_set"))]
    for name in INSTANTIATED:
        for path, value in _sections(own.get(name), ("hydra", name)):
            if path[-1] in REACHING:
                keys.append((path, value))
    for path, value in keys:
        if value:
            yield Refused(
                path=path,
                what="holds commands, addresses or variables, which only you may set",
                remedy="give it on the command line, or name a folder that you trust in "
                "PRESSWORK_CONF",
                always=False,
            )


def _sending(raw: Mapping[str, Any]) -> Iterator[Refused]:
    """Keys that send or publish what is the user's, or free it: for the user alone to set.

    A tracker's library sends credentials of the environment to whatever address it is given.
    """
    for section, (keys, what) in SENDING.items():
        value = raw.get(section)
        if isinstance(value, str):  # a reference to whatever it likes
            yield _own_matter((section,), what)
        elif isinstance(value, Mapping):
            for key in keys:
                if _at(value, key) not in (None, [], "", True):
                    yield replace(_own_matter((section, *key.split(".")), what), replaced=True)


def _at(value: Any, key: str) -> Any:
    """What a mapping has at a dotted key; a text on the way there is a reference, and counts."""
    for name in key.split("."):
        if not isinstance(value, Mapping):
            break
        value = value.get(name)
    return value


def _own_matter(path: Path, what: str) -> Refused:
    key = ".".join(path)
    return Refused(
        path=path,
        what=f"{what}, which only you may say",
        remedy=f"give it on the command line ({key}=...), or name a folder that you trust in "
        "PRESSWORK_CONF",
        always=False,
    )


def _sections(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    yield path, value
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _sections(item, (*path, str(name)))
