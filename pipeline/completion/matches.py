"""Candidates for the word at the cursor, from the names that there are; pure but for paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Names = dict[str, Any]
SIGNS = ("++", "+", "~")
WITH_PATH = ("-cd", "--config-dir", "-cp", "--config-path")
SHOWN = ("job", "hydra", "all")
WITH_CHOICE = {"-c": SHOWN, "--cfg": SHOWN}
EXPLAINED = "key"
"""The key whose value is the name of a key (mode=explain key=KEY)."""


def candidates(
    word: str, before: str, names: Callable[[], Names], values: Callable[[str], Names]
) -> list[str]:
    """Whole words that begin with `word`, sorted; those that go on end in one of `= . / ,`.

    `before` is the word before it. `names` gives {"groups": {group: options}, "keys": [key],
    "flags": [flag]}; `values` of a key {"values": [text], "paths": whether it is a path}.
    """
    if before in WITH_PATH:
        return paths(word)
    if before in WITH_CHOICE:
        return _beginning(word, WITH_CHOICE[before])
    if word.startswith("-"):
        return _beginning(word, names()["flags"])
    sign = next((sign for sign in SIGNS if word.startswith(sign)), "")
    key, equals, value = word[len(sign) :].partition("=")
    found = _values(key, value, names, values) if equals else _names(key, sign, names())
    start = f"{sign}{key}=" if equals else sign
    return [f"{start}{each}" for each in found if each.isprintable()]


def paths(word: str) -> list[str]:
    """Files and folders whose path begins with `word`; folders end in a slash."""
    folder, name = os.path.split(word)
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            found = [entry.name + ("/" if entry.is_dir() else "") for entry in entries]
    except OSError:
        return []
    shown = (each for each in found if name.startswith(".") or not each.startswith("."))
    return [os.path.join(folder, each) for each in _beginning(name, shown)]


def _values(
    key: str, value: str, names: Callable[[], Names], values: Callable[[str], Names]
) -> list[str]:
    """Values of a key or options of a group; of several with commas between them, for the last."""
    groups = names()["groups"]
    if key in groups:
        return _in_list(value, groups[key])
    if key == EXPLAINED:
        return _beginning(value, _stepwise(value, names()["keys"], ".", ""))
    found = values(key)
    if not found["paths"]:
        return _in_list(value, found["values"])
    listed = value.startswith("[") or "," in value
    head = value[: max(value.rfind(","), value.rfind("[")) + 1] if listed else ""
    return [head + each for each in paths(value[len(head) :])]


def _in_list(value: str, options: Sequence[str]) -> list[str]:
    """Options after the last comma of `[a,b` (a list) or `a,b` (a sweep); none twice."""
    head = value[: max(value.rfind(","), value.rfind("[")) + 1]
    taken = head.strip("[,").split(",")
    return [head + each for each in _beginning(value[len(head) :], options) if each not in taken]


def _names(word: str, sign: str, names: Names) -> list[str]:
    """Groups and keys, each up to its next separator."""
    ends = "" if sign == "~" else "="
    found = set(_stepwise(word, names["groups"], "/", ends))
    if sign != "+":  # a key that is there cannot be added
        found |= set(_stepwise(word, names["keys"], ".", ends))
    return _beginning(word, found)


def _stepwise(word: str, names: Iterable[str], separator: str, ends: str) -> list[str]:
    """Names that begin with `word`, cut after the first separator beyond it."""
    found: list[str] = []
    for name in names:
        if name.startswith(word):
            step, more, _ = name[len(word) :].partition(separator)
            found.append(f"{word}{step}{separator if more else ends}")
    return found


def _beginning(word: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in set(names) if name.startswith(word))
