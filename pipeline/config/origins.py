"""Origins of config values: the files and command-line words that set a key, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import OmegaConf

from pipeline.config.resolvers import listed
from pipeline.config.searchpath import own_configs
from pipeline.registry import choices
from pipeline.report.units import nearby


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One place that sets a key; of several, the last one counts.

    `place` is a file, or a word of the command line. `why` is the choice that brought the file in.
    """

    place: str
    why: str
    value: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """The composition of the running command's config, read while Hydra is initialized."""

    name: str
    overrides: tuple[str, ...]

    @staticmethod
    def current() -> Composition:
        context = HydraConfig.get()
        # not resolved: an override may itself be a reference, to a secret of the environment too
        given = cast(Any, OmegaConf.to_container(context.overrides, resolve=False))
        words = [*given["hydra"], *given["task"]]
        return Composition(name=str(context.job.config_name), overrides=tuple(map(str, words)))

    def settings(self, key: Sequence[str]) -> list[Setting]:
        """Every place that sets `key` or a mapping around it, in the order of composition."""
        return [*self._files(tuple(key)), *self._words(tuple(key))]

    def options(self, group: str) -> list[str]:
        """The options of a config group; empty if there is no such group."""
        return listed(group)

    def chosen(self, group: str) -> str | None:
        """The option that the command line chose from a group, if it did."""
        given = (o for o in self._parsed() if o.key_or_group == group and not o.is_delete())
        return next((str(o.value()) for o in given), None)

    def remedy(self, group: str, option: str) -> str:
        """A remedy where a key only exists with another choice of a group; empty without one."""
        options = self.options(group)
        if option in options:
            return f"it is there with {group}={option}"
        return choices(option, options) if options else ""

    def _files(self, key: tuple[str, ...]) -> Iterator[Setting]:
        loader = GlobalHydra.instance().config_loader()
        defaults = loader.compute_defaults_list(self.name, list(self.overrides), RunMode.RUN)
        repository = cast(Any, loader).repository
        for default in defaults.defaults:
            loaded = repository.load_config(default.config_path)
            if loaded is None or not OmegaConf.is_dict(loaded.config):
                continue
            content: Any = OmegaConf.to_container(loaded.config, resolve=False)
            package = [p for p in (default.package or "").split(".") if p and p != "_global_"]
            for step in reversed(package):
                content = {step: content}
            value = _at(content, key)
            if value is not _NOWHERE:
                path = Path(loaded.path.removeprefix("file://")) / f"{default.config_path}.yaml"
                file = _short(path) if loaded.path.startswith("file://") else str(path)
                yield Setting(place=file, why=self._why(default), value=value)

    def _why(self, default: Any) -> str:
        group, _, option = str(default.config_path).rpartition("/")
        if default.primary or not group:
            return "the main config"
        if self.chosen(group) is not None:
            return f"{group}={option} on the command line"
        return f"{group}={option}, chosen by {default.parent}"

    def _words(self, key: tuple[str, ...]) -> Iterator[Setting]:
        for override in self._parsed():
            path = tuple(override.key_or_group.split("."))
            if self.options(override.key_or_group) or path != key[: len(path)]:
                continue
            value = None if override.is_delete() else override.value()
            inner = _at(value, key[len(path) :])
            if inner is not _NOWHERE:
                word = str(override.input_line)
                yield Setting(place="the command line", why=word, value=inner)

    def _parsed(self) -> list[Override]:
        return OverridesParser.create().parse_overrides(list(self.overrides))


class _Nowhere:
    """Sentinel for a missing value, as None is a value."""


_NOWHERE = _Nowhere()


def _at(value: Any, path: Sequence[str]) -> Any:
    for step in path:
        if not isinstance(value, dict):
            return _NOWHERE
        keys = {str(key): key for key in value}
        if step not in keys:
            return _NOWHERE
        value = value[keys[step]]
    return value


def _short(path: Path) -> str:
    shipped = own_configs()
    if path.is_relative_to(shipped):
        return f"conf/{path.relative_to(shipped)}"
    return nearby(path)
