"""Run folders that a store knows, wherever they are: who refers to its results."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from pipeline.store.disk import replace_text
from pipeline.store.layout import Layout

LONGEST = 4096


def note_run(layout: Layout, folder: Path) -> None:
    """Add a run folder to those that a store knows. A full or read-only disk is no error."""
    place = str(folder.absolute())
    path = layout.runs / f"{sha256(place.encode(errors='surrogateescape')).hexdigest()[:16]}.txt"
    with suppress(OSError, UnicodeEncodeError):
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            replace_text(path, place, tmp=layout.tmp)


def noted_runs(layout: Layout) -> tuple[tuple[Path, ...], int]:
    """The noted folders that are here, sorted, and how many are not: removed, or elsewhere."""
    here, gone = [], 0
    for path in layout.runs.glob("*.txt"):
        with suppress(OSError, UnicodeDecodeError, ValueError):
            folder = Path(path.read_text(encoding="utf-8")[:LONGEST])
            if (folder / "config.yaml").is_file():
                here.append(folder)
            else:
                gone += 1
    return tuple(sorted(here)), gone
