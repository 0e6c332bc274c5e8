"""Findings of a translation: parts of a recipe that cannot be translated, and parts left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from stages.recipes.document import Tagged, join


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One modifier of a recipe: its path in the file, the name of its class, and its options."""

    path: str
    name: str
    options: Mapping[str, Any]


@dataclass(slots=True)
class Findings:
    """Problems and notes collected while a recipe is read; `check` raises all problems at once."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def cannot(self, path: str, why: str) -> None:
        """Record a part that cannot be translated."""
        self.problems.append(f"{path}: {why}")

    def unneeded(self, path: str, why: str) -> None:
        """Record a part that has no meaning in presswork."""
        self.notes.append(f"{path} is not needed: {why}")

    def check(self) -> None:
        """Raise UserError if some part cannot be translated."""
        if self.problems:
            lines = "\n".join(f"    {problem}" for problem in dict.fromkeys(self.problems))
            raise UserError(
                f"{len(self.problems)} parts of the recipe cannot be translated:\n{lines}",
                remedy="take them out of the recipe, or say the rest of it in presswork's own "
                "config (scheme=..., modifier=...)",
            )

    def unknown(self, path: str, options: Iterable[str], known: Iterable[str]) -> None:
        """Record every option that llm-compressor's class does not have."""
        allowed = set(known)
        for name in options:
            if name not in allowed:
                self.cannot(join(path, name), "there is no such option")

    def plain(self, path: str, value: Any) -> None:
        """Record every value at or below `path` that only a program can read."""
        if isinstance(value, Tagged):
            self.cannot(path, f"it is {shown(value)}")
        elif isinstance(value, Mapping):
            for name, item in value.items():
                self.plain(join(path, name), item)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self.plain(f"{path}[{index}]", item)

    def texts(self, path: str, value: Any) -> list[str]:
        """A text or a list of texts as a list; empty, and recorded, for anything else."""
        if isinstance(value, str):
            return [value]
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return list(value)
        self.cannot(path, f"{shown(value)} is no list of texts")
        return []

    def mapping(self, path: str, value: Any) -> dict[str, Any]:
        """A value as a mapping; empty, and recorded, if it is not one."""
        if isinstance(value, dict):
            return value
        self.cannot(path, f"{shown(value)} is given where a mapping belongs")
        return {}


def shown(value: Any) -> str:
    """A short form of a value for messages."""
    if isinstance(value, Tagged):
        return f"{value} (a value that only a program can read)"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
