"""Find the local files of a dataset, and identify their content by sha256."""

from __future__ import annotations

import glob
from pathlib import Path

from pipeline.errors import UserError
from pipeline.key import Json
from stages.weights.hashes import sha256_of


def find_files(path: str, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    """The files that `path` names: one file, a folder (searched recursively), or a glob pattern.

    A folder gives its files with one of `suffixes`, sorted; a file or a pattern may have any
    suffix. Raises UserError if there are none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return (place,)
    if place.is_dir():
        found = sorted(p for p in place.rglob("*") if p.suffix in suffixes and p.is_file())
        if not found:
            raise UserError(
                f"dataset.path={path} is a folder without any {' or '.join(suffixes)} file",
                remedy="give one file, a pattern such as 'texts/*.md', or another dataset kind",
            )
        return tuple(found)
    matches = sorted(m for p in glob.glob(str(place), recursive=True) if (m := Path(p)).is_file())
    if not matches:
        raise UserError(
            f"dataset.path={path} does not exist (looked from {Path.cwd()})",
            remedy="give a file, a folder or a pattern such as 'texts/**/*.txt'",
        )
    return tuple(matches)


def content(path: str, suffixes: tuple[str, ...]) -> Json:
    """Part of the key: the sha256 of the files that `path` names, in their order."""
    files = find_files(path, suffixes)
    hashes = sha256_of(files)
    return {"sha256": [hashes[file] for file in files]}
