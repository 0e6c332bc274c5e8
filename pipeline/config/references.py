"""References `${...}` of a config, followed transitively: the keys that the graph uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.errors import UserError
from pipeline.nested import Path, leaves
from pipeline.registry import choices

_INNERMOST = re.compile(r"(?<!\\)\$\{([^${}]*)\}")
_WHOLE = re.compile(r"\$\{\s*([\w.]+)\s*\}")
_READERS = ("oc.select", "oc.dict.keys", "oc.dict.values")


@dataclass(slots=True)
class References:
    """The keys reached from some start in the unresolved config `raw` (dicts, lists, scalars).

    `reached` are paths whose whole subtree is used, with the resolved text of a scalar there (empty
    while it is being followed, so that cycles end); `problems` are dangling references.
    """

    raw: Mapping[str, Any]
    reached: dict[Path, str | None] = field(default_factory=dict)
    problems: list[UserError] = field(default_factory=list)

    def follow(self, start: Path) -> None:
        """Follow every reference in the subtree at `start`."""
        for path, leaf in leaves(_at(self.raw, start), start):
            if isinstance(leaf, str):
                self.text(leaf, path)

    def covers(self, path: Path) -> bool:
        """Whether a reached subtree contains `path`."""
        return any(path[:length] in self.reached for length in range(1, len(path) + 1))

    def text(self, text: str, at: Path) -> str:
        """Follow the references of one string, the innermost first; returns the resolved text."""
        chosen: list[tuple[Path, str]] = []
        while match := _INNERMOST.search(text):
            inner = match.group(1).strip()
            if ":" in inner:
                value = self.call(inner, nested="${" in text[: match.start()])
            else:
                path = _absolute(inner, at)
                value = self.reach(path, at, chosen) or ""
                chosen.append((path, value))
            text = text[: match.start()] + value + text[match.end() :]
        return text

    def reach(self, path: Path, at: Path, chosen: list[tuple[Path, str]]) -> str | None:
        """Record that `path` is used; returns its value as text if it is a scalar."""
        for length in range(1, len(path)):
            above = _at(self.raw, path[:length])
            whole = _WHOLE.fullmatch(above) if isinstance(above, str) else None
            if whole:
                moved = (*_absolute(whole.group(1), path[:length]), *path[length:])
                return self.reach(moved, at, chosen)
        try:
            value = _at(self.raw, path)
        except KeyError:
            self.problems.append(self.dangling(path, at, chosen))
            return None
        if value == "???":
            key = ".".join(path)
            self.problems.append(UserError(f"{key} is missing", remedy=f"give {key}=VALUE"))
        if path not in self.reached:
            self.reached[path] = None if isinstance(value, Mapping | list) else ""
            if isinstance(value, Mapping | list):
                self.follow(path)
            else:
                self.reached[path] = self.text(str(value), path)
        return self.reached[path]

    def call(self, inner: str, *, nested: bool) -> str:
        """A resolver such as `oc.env:HOME`: keys it reads are reached; its value if needed."""
        name, _, arguments = inner.partition(":")
        for argument in arguments.split(","):
            path = tuple(argument.strip().split("."))
            if name in _READERS and _holds(self.raw, path):
                self.reach(path, (), [])
        if not nested:
            return ""
        try:
            return str(OmegaConf.create({"value": f"${{{inner}}}"})["value"])
        except OmegaConfBaseException as error:
            self.problems.append(UserError(f"${{{inner}}} cannot be resolved: {error}"))
            return ""

    def dangling(self, path: Path, at: Path, chosen: list[tuple[Path, str]]) -> UserError:
        """The error of a dangling reference, naming the choice that led there if one did."""
        known = 0
        while known < len(path) and _holds(self.raw, path[: known + 1]):
            known += 1
        siblings = _at(self.raw, path[:known])
        names = list(siblings) if isinstance(siblings, Mapping) else []
        wrong = path[known]
        for by, value in chosen:
            if value == wrong:
                return UserError(f"{'.'.join(by)} is {value!r}", remedy=choices(value, names))
        return UserError(
            f"{'.'.join(at)} refers to ${{{'.'.join(path)}}}, which is not in this config",
            remedy=choices(wrong, names),
        )


def aliases(value: object, path: Path) -> Iterator[tuple[str, str]]:
    """(path of a leaf, path it refers to) for each leaf that is exactly one reference."""
    for where, leaf in leaves(value, path):
        whole = _WHOLE.fullmatch(leaf) if isinstance(leaf, str) else None
        if whole:
            yield ".".join(where), ".".join(_absolute(whole.group(1), where))


def _absolute(reference: str, at: Path) -> Path:
    """The path of a reference written at `at`; one leading dot means a sibling."""
    name = reference.lstrip(".")
    dots = len(reference) - len(name)
    steps = tuple(name.replace("[", ".").replace("]", "").split("."))
    return steps if dots == 0 else (*at[: len(at) - dots], *steps)


def _at(raw: object, path: Path) -> Any:
    value = raw
    for step in path:
        if isinstance(value, list):
            if not step.isdigit() or int(step) >= len(value):
                raise KeyError(step)
            value = value[int(step)]
        elif isinstance(value, Mapping):
            keys = {str(key): key for key in value}
            value = value[keys[step]]
        else:
            raise KeyError(step)
    return value


def _holds(raw: object, path: Path) -> bool:
    try:
        _at(raw, path)
    except KeyError:
        return False
    return True
