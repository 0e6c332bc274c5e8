"""Config values that come from the environment, by `${oc.env:NAME}` or a key that refers to one.

They are shown and stored as they are written, so that config.yaml runs again on any machine and
holds no secret. A value that ends up in a checkpoint must not come from there, unless its variable
is listed in `environment.published`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from pipeline.errors import UserError
from pipeline.masking import note_variable
from pipeline.nested import Path, leaves

RESOLVER = "oc.env"
_NUMBER = re.compile(r"[-+]?[\d._]+(?:[eE][-+]?\d+)?|true|false|null|None", re.IGNORECASE)
_INDEX = re.compile(r"\[(\d+)\]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """A value as written, as resolved, and the variables that it came from."""

    written: str
    value: Any
    variables: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """The readings of a config by dotted path, and the variables that may be published."""

    readings: Mapping[str, Reading] = field(default_factory=dict)
    published: tuple[str, ...] = ()

    @staticmethod
    def of(cfg: DictConfig, published: tuple[str, ...] = ()) -> Environment:
        """Resolve every reference of a config and note which ones read the environment.

        References that cannot be resolved are left out: loading the config tells of them.
        """
        raw = OmegaConf.to_container(cfg, resolve=False)
        written = [(path, leaf) for path, leaf in leaves(raw) if _refers(leaf)]
        if not any(":" in str(leaf) for _, leaf in written):
            return Environment(published=published)  # no resolver is called, under any name
        readings: dict[str, Reading] = {}
        with _recording() as read:
            for path, leaf in written:
                read.clear()
                try:
                    value = _resolved(cfg, path)
                except (OmegaConfBaseException, RecursionError, KeyError, ValueError, TypeError):
                    continue
                if read:
                    readings[".".join(path)] = Reading(
                        written=str(leaf), value=value, variables=tuple(dict.fromkeys(read))
                    )
        return Environment(readings=readings, published=published)

    def kept(self, raw: Any, plain: Any, path: Path = ()) -> Any:
        """Resolved values, but for those of the environment, which stay as they are written."""
        if isinstance(raw, str) and ".".join(path) in self.readings:
            return raw
        if isinstance(raw, Mapping) and isinstance(plain, Mapping):
            names = {str(name): item for name, item in raw.items()}
            return {k: self.kept(names.get(str(k)), v, (*path, str(k))) for k, v in plain.items()}
        if isinstance(raw, list) and isinstance(plain, list) and len(raw) == len(plain):
            pairs = enumerate(zip(raw, plain, strict=True))
            return [self.kept(r, p, (*path, str(i))) for i, (r, p) in pairs]
        return plain

    def shown(self, path: str, value: Any) -> str:
        """A value for messages: as it is written where it comes from the environment."""
        reading = self._above(path)
        if reading is not None:
            return reading.written
        return self.hidden(path, repr(value))

    def hidden(self, section: str, text: str) -> str:
        """A text with the values of a section replaced by how they are written."""
        for reading in self._within(section).values():
            value = str(reading.value)
            if isinstance(reading.value, str) and value:
                text = text.replace(repr(value), reading.written)
                parts = re.split(rf"(?<!\w){re.escape(value)}(?!\w)", text)
                text = reading.written.join(parts)
        return text

    def withheld(self, path: str) -> list[UserError]:
        """A problem for each text at or below `path` that would be published and may not.

        Numbers within a section, such as a group size, may.
        """
        problems: list[UserError] = []
        above = self._above(path)
        found = self._within(path) if above is None else {path: above}
        for where, reading in found.items():
            names = [name for name in reading.variables if name not in self.published]
            if names and not (above is None and _NUMBER.fullmatch(str(reading.value))):
                variables = ", ".join(names)
                problems.append(
                    UserError(
                        f"{where}: {reading.written} comes from the environment, and the value is "
                        "written into the checkpoint or its results",
                        remedy=f"if {variables} is no secret, say "
                        f"environment.published=[{variables}]; else write the value itself",
                    )
                )
        return problems

    def _above(self, path: str) -> Reading | None:
        steps = _INDEX.sub(r".\1", path).split(".")
        for length in range(len(steps), 0, -1):
            if reading := self.readings.get(".".join(steps[:length])):
                return reading
        return None

    def _within(self, section: str) -> dict[str, Reading]:
        start = _INDEX.sub(r".\1", section)
        return {
            path: reading
            for path, reading in self.readings.items()
            if path == start or path.startswith(f"{start}.") or not start
        }


def _refers(leaf: object) -> bool:
    return isinstance(leaf, str) and "${" in leaf


def _resolved(cfg: DictConfig, path: Path) -> Any:
    value: Any = cfg
    for step in path:
        if OmegaConf.is_list(value):
            value = value[int(step)]
        else:
            names = {str(name): name for name in value}
            value = value[names[step]]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def register_environment() -> None:
    """Register `oc.env`, OmegaConf's own, so that errors do not tell the values that it read."""
    OmegaConf.register_new_resolver(RESOLVER, _noted, replace=True)


_shown: ContextVar[bool] = ContextVar("references are shown", default=False)


@contextmanager
def references_shown(shown: bool = True) -> Iterator[None]:
    """Context in which `oc.env` gives the reference itself, for a config that is only printed."""
    before = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(before)


def _noted(name: str, *default: str | None) -> str | None:
    if _shown.get():
        return f"${{{RESOLVER}:{','.join((name, *map(_written, default)))}}}"
    note_variable(name)
    return oc.env(name, *default)


def _written(default: object) -> str:
    """A default as a config writes it; numbers and truth values come as such."""
    if default is None:
        return "null"
    text = str(default)
    if re.fullmatch(r"[\w./:+-]+", text):
        return text
    return "'" + text.replace("'", r"\'") + "'"


@contextmanager
def _recording() -> Iterator[list[str]]:
    """Context that lists the variables that are read by `oc.env`."""
    read: list[str] = []

    def recorded(name: str, *default: str | None) -> str | None:
        if name in os.environ:
            read.append(name)
        return _noted(name, *default)

    OmegaConf.register_new_resolver(RESOLVER, recorded, replace=True)
    try:
        yield read
    finally:
        register_environment()
