"""Content of a file of a result while it is in memory: its size, where it can lie, how to write it.

A stage hands a draft such content instead of writing a file. What becomes of it is the runner's
matter: a file of the store, a file for the duration of the run, or nothing but memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """A memory by name (`cpu`, `cuda:0`) and its size in bytes, free or not."""

    name: str
    capacity: int


class Content(Protocol):
    """Immutable content of one file, opaque to the framework.

    Its stage knows what it is when it gets it back from `Artifact.content`.
    """

    @property
    def bytes(self) -> int:
        """Size in memory, about that of the file."""
        ...

    @property
    def memories(self) -> tuple[Memory, ...]:
        """Where it can be kept, the fastest first; it lies in the first of them."""
        ...

    def moved(self, memory: str) -> Content:
        """The same content in another of `memories`."""
        ...

    def write(self, path: Path) -> None:
        """Write the file: the same bytes wherever the content lies."""
        ...
