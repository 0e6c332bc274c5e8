"""Find the local files of a dataset, and identify their content by sha256."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.plain_file import is_plain
from stages.weights.hashes import sha256_of

Listings = dict[tuple[str, tuple[str, ...]], tuple[Path, ...]]
_listings: ContextVar[Listings | None] = ContextVar("files that were found", default=None)


@contextmanager
def listed_once() -> Iterator[None]:
    """Context in which a path always names the files that it named first.

    So a file that appears in a folder between hashing and reading is not read: no key has it.
    """
    before = _listings.set({})
    try:
        yield
    finally:
        _listings.reset(before)


def find_files(path: str, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """The files that `path` names: one file, a folder (searched recursively), or a glob pattern.

    A folder gives its files with one of `suffixes`, sorted; a file or a pattern may have any
    suffix. Raises UserError if there are none, and for pipes, devices and links that lead nowhere.
    """
    listings = _listings.get()
    if listings is None:
        return _found(path, suffixes)
    if (path, suffixes) not in listings:
        listings[path, suffixes] = _found(path, suffixes)
    return listings[path, suffixes]


def _found(path: str, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    place = Path(path).expanduser()
    if is_plain(place):
        return (place,)
    if place.is_dir():
        named = sorted(p for p in place.rglob("*") if p.suffix in suffixes)
        found = [p for p in named if is_plain(p)]
        if not found:
            raise UserError(
                f"dataset.path={path} is a folder without any {' or '.join(suffixes)} file",
                remedy="give one file, a pattern such as 'texts/*.md', or another dataset kind",
            )
        return tuple(found)
    named = sorted(Path(match) for match in glob.glob(str(place), recursive=True))
    matches = [match for match in named if is_plain(match)]
    if not matches:
        raise UserError(
            f"the dataset {path} does not exist (looked from {Path.cwd()})",
            remedy="give a file, a folder or a pattern such as 'texts/**/*.txt'",
        )
    return tuple(matches)


def content(path: str, suffixes: tuple[str, ...]) -> Json:
    """Part of the key: the sha256 of the files that `path` names, in their order."""
    files = find_files(path, suffixes)
    hashes = sha256_of(files)
    return {"sha256": [hashes[file] for file in files]}
