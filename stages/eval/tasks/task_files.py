"""Tasks on disk: those of a folder of the user's own with their data, and the harness's names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.plain_file import is_plain, open_plain
from stages.weights.hashes import sha256_of

MOST_FILES = 10_000
LONGEST = 1_000_000
"""Bytes of the definition of a task."""
YAMLS = (".yaml", ".yml")
_NAME = re.compile(rb"^\s*(?:task|group|tag):[ \t]*[\"']?([\w./+-]+)[\"']?[ \t]*$", re.MULTILINE)
_TAGS = re.compile(rb"^tag:[ \t]*\n((?:[ \t]*-[ \t]+\S+[ \t]*\n?)+)", re.MULTILINE)


_Loader: Any = type("_Loader", (yaml.SafeLoader,), {})
"""YAML without its tags: `!function` names Python that only the harness runs."""
_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnTasks:
    """The tasks of a folder: the names it defines, its files, and data that they name elsewhere."""

    folder: Path
    names: frozenset[str]
    files: tuple[Path, ...]
    data: tuple[Path, ...]
    groups: bool
    """Whether it defines groups, which may have tasks of the harness's own."""

    def content(self) -> Json:
        """Part of the key: the sha256 of all of it. Where it lies is not part of it."""
        hashes = sha256_of((*self.files, *self.data))
        files = {p.relative_to(self.folder).as_posix(): hashes[p] for p in self.files}
        return {"files": files, "data": [hashes[path] for path in self.data]}


def own_tasks(path: str) -> OwnTasks:
    """Read the definitions in a folder. Raises UserError for what cannot be read."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"eval.include_path={path} is no folder (looked from {Path.cwd()})",
            remedy="give the folder with the YAML files of your tasks",
        )
    files = tuple(_files(folder))
    names: set[str] = set()
    data: set[Path] = set()
    groups = False
    for file in files:
        if file.suffix not in YAMLS:
            continue
        content = _read(file)
        groups = groups or "group" in content
        names.update(_named(content))
        data.update(_data(content))
    inside = set(files)
    return OwnTasks(
        folder=folder,
        names=frozenset(names),
        files=files,
        data=tuple(sorted(path for path in data if path not in inside)),
        groups=groups,
    )


def _files(folder: Path) -> Iterator[Path]:
    """Every plain file below a folder but hidden and compiled ones, sorted."""
    count = 0
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(n for n in inner if not n.startswith(".") and n != "__pycache__")
        for name in sorted(names):
            file = Path(place) / name
            if name.startswith(".") or not is_plain(file):
                continue
            count += 1
            if count > MOST_FILES:
                raise UserError(
                    f"eval.include_path={folder} has more than {MOST_FILES} files",
                    remedy="give the folder of the tasks alone: all of it is part of keys",
                )
            yield file


def _read(file: Path) -> Mapping[str, Any]:
    with open_plain(file) as opened:
        text = opened.read(LONGEST + 1)
    if len(text) > LONGEST:
        raise UserError(f"{file} has more than {LONGEST} bytes: no task is as long")
    try:
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader that drops tags
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file} is no YAML that can be read: {reason}") from error
    return content if isinstance(content, Mapping) else {}


def _named(content: Mapping[str, Any]) -> Iterator[str]:
    """The names that a definition can be asked by: task, group and tags."""
    for key in ("task", "group", "tag"):
        value = content.get(key)
        for name in value if isinstance(value, list) and key == "tag" else [value]:
            if isinstance(name, str):
                yield name


def _data(content: Mapping[str, Any]) -> Iterator[Path]:
    """The local data files that a definition names, as the harness finds them: from here."""
    arguments = content.get("dataset_kwargs")
    given = arguments.get("data_files") if isinstance(arguments, Mapping) else None
    for text in (*_texts(given), *_texts(content.get("dataset_path"))):
        place = Path(text)
        if place.is_dir():
            yield from _files(place)
        else:
            yield from (
                Path(found) for found in glob(text, recursive=True) if is_plain(Path(found))
            )


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for item in value.values() for text in _texts(item))
    elif isinstance(value, list):
        yield from (text for item in value for text in _texts(item))


def unknown(names: Iterable[str], folder: str) -> tuple[str, ...]:
    """Those of `names` that no file of the harness's tasks defines.

    Most are called as their file is; only for the others all definitions are looked through, which
    takes a second or two.
    """
    asked = list(names)
    stems = _stems(folder)
    left = [name for name in asked if name not in stems]
    if not left:
        return ()
    known = harness_names(folder)
    return tuple(name for name in left if name not in known)


@lru_cache(maxsize=4)
def _stems(folder: str) -> frozenset[str]:
    found = (Path(n) for _, _, names in os.walk(folder) for n in names)
    return frozenset(name.stem for name in found if name.suffix in YAMLS)


@lru_cache(maxsize=4)
def harness_names(folder: str) -> frozenset[str]:
    """Every name of a task, a group or a tag in the harness's definitions, without parsing them."""
    found: set[bytes] = set()
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(YAMLS):
                text = (Path(place) / name).read_bytes()
                found.update(_NAME.findall(text))
                for tags in _TAGS.findall(text):
                    found.update(line.strip(b" \t-") for line in tags.splitlines())
    return frozenset(name.decode(errors="replace") for name in found)
