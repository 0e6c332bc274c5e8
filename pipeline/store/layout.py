"""Folder layout of the store: paths of artifacts, seals, locks, leases, temporary files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KEY = re.compile(r"[0-9a-f]{64}")
MANIFEST = "manifest.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Paths below `root`. Artifacts are in `<first two digits>/<key>/`."""

    root: Path

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def locks(self) -> Path:
        return self.root / "locks"

    @property
    def live(self) -> Path:
        return self.root / "live"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def seals(self) -> Path:
        return self.root / "seals"

    @property
    def processors(self) -> Path:
        return self.root / "processors"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def folders(self) -> tuple[Path, ...]:
        return (self.root, self.tmp, self.locks, self.live, self.quarantine, self.seals)

    def entry(self, key: str) -> Path:
        """The folder of an artifact. Raises ValueError unless `key` is 64 hex digits."""
        return self.root / checked(key)[:2] / key

    def seal(self, key: str) -> Path:
        return self.seals / checked(key)[:2] / f"{key}.json"

    def keys(self) -> Iterator[str]:
        """Keys that have a folder, in order; the folders are not checked."""
        for shelf in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for folder in sorted(shelf.iterdir()):
                if KEY.fullmatch(folder.name) and folder.name.startswith(shelf.name):
                    yield folder.name


def checked(key: str) -> str:
    # A key becomes a path: anything but hex digits could leave the folder.
    if not KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not a key: 64 hex digits")
    return key
