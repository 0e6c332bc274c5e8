"""Processors that results of a store were computed on, to say why one is not used again."""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256

from pipeline.store.disk import replace_text
from pipeline.store.layout import Layout

LONGEST = 4096


def note_processor(layout: Layout, signature: str) -> None:
    """Add a processor to those that a store knows. It is only told of: a full disk is no error."""
    path = layout.processors / f"{sha256(signature.encode()).hexdigest()[:16]}.txt"
    with suppress(OSError):
        if not path.exists():
            replace_text(path, signature, tmp=layout.tmp)


def noted_processors(layout: Layout) -> list[str]:
    """The signatures of the processors that a store knows, sorted."""
    found = set[str]()
    for path in layout.processors.glob("*.txt"):
        with suppress(OSError, UnicodeDecodeError):
            found.add(path.read_text(encoding="utf-8")[:LONGEST])
    return sorted(found)
