"""Names for completion in the user's cache: one small file for each kind of command line.

A file holds what it was made from (config files and folders, the places of installed packages, with
size and time of change) and counts for nothing once any of it differs. Losing it costs half a
second. Only modules are imported here that Python starts with, or nearly.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pipeline

Names = dict[str, Any]
"""What `pipeline.completion.collect` found: {"groups", "keys", "flags"} or {"values", "paths"}."""
Files = Sequence[str]
MOST = 64
"""Files that are kept, the last used ones."""
MOST_STAMPS = 4000
"""Files and folders that names may depend on; more are not worth looking at for every question."""


def known(words: Sequence[str], key: str = "") -> Names | None:
    """The names for what follows these words, or the values of a key; None if not in the cache."""
    path = _path(words, key)
    try:
        with open(path, encoding="utf-8") as file:
            held = json.load(file)
        if not isinstance(held, dict) or any(_stamp(s[0]) != s[1:] for s in held["stamps"]):
            return None
        os.utime(path)
        names = held["names"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # not there, or not ours
    return names if isinstance(names, dict) else None


def remember(words: Sequence[str], names: Names, files: Files, key: str = "") -> None:
    """Keep the names, which follow from these files and folders; no error where that fails."""
    stamps = [[path, *_stamp(path)] for path in dict.fromkeys((*files, *_installed()))]
    if len(stamps) > MOST_STAMPS:
        return
    path = _path(words, key)
    draft = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            json.dump({"stamps": stamps, "names": names}, file)
        os.replace(draft, path)
        _forget_oldest(os.path.dirname(path))
    except OSError:
        return  # a read-only or full home: it is found out again next time


def choosing(words: Iterable[str]) -> list[str]:
    """Those of the words before the cursor that decide which names there are.

    Setting a key that is there (eval.batch_size=8) does not; choosing an option, adding and
    removing do, and options of the command line.
    """
    return [word for word in words if not _sets_a_value(word)]


def _sets_a_value(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and "." in key and key[0] not in "+~-" and not key.startswith("hydra.")


def _path(words: Sequence[str], key: str) -> str:
    about = choosing(words)
    folders = os.environ.get("PRESSWORK_CONF", "")
    by_path = folders or any(word[:1] == "-" or "searchpath" in word for word in about)
    here = os.getcwd() if by_path else ""
    asked = json.dumps([pipeline.__file__, sys.prefix, about, here, folders, key])
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    name = hashlib.sha256(asked.encode()).hexdigest()
    return os.path.join(base, "presswork", "completion", f"{name}.json")


def _installed() -> list[str]:
    """Folders that change when a package is installed, which may bring groups and kinds."""
    project = os.path.join(os.path.dirname(os.path.dirname(pipeline.__file__)), "pyproject.toml")
    return [*(path for path in sys.path[1:] if path), project]


def _stamp(path: str) -> list[int]:
    try:
        found = os.stat(path)
    except OSError:
        return [0, 0]
    return [found.st_mtime_ns, found.st_size]


def _forget_oldest(folder: str) -> None:
    with os.scandir(folder) as entries:
        by_age = sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in by_age[MOST:]:
        os.unlink(entry.path)
