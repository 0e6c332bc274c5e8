"""Files outside the store: each is read in the state in which its content was identified.

A key names the content of a model's or a dataset's files, and the files stay where they are, where
anybody may change them during a run. So what is read of a file counts only if the file is, before
and after, the one whose content is known: of the same size, times, inode and device. A reader opens
it as a :class:`PinnedFile`; where only a path can be given to a library, the node names the path
first (`pipeline.stage.Task.reads`), and the runner looks again before it commits a result.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.sha256 import open_sha256

if TYPE_CHECKING:
    from io import FileIO

REMEDY = (
    "put it back as it was, or leave it as it is now, and run the same command again: what was "
    "finished before the change is kept, and a model or dataset that changed gets other keys"
)


class FileChanged(UserError):
    """A file outside the store changed while a run was reading it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileState:
    """What changes whenever the content of a file does: size in bytes, times in ns, inode, device.

    A write sets both times, and no program can set `ctime_ns` back as `touch` sets `mtime_ns`.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    @staticmethod
    def of(status: os.stat_result) -> FileState:
        return FileState(
            size=status.st_size,
            mtime_ns=status.st_mtime_ns,
            ctime_ns=status.st_ctime_ns,
            inode=status.st_ino,
            device=status.st_dev,
        )

    def changes(self, now: FileState) -> str:
        """How a file that was in this state differs `now`, in words."""
        if (self.inode, self.device) != (now.inode, now.device):
            return "another file is in its place"
        if self.size != now.size:
            return f"it had {self.size} bytes, it has {now.size}"
        if self.mtime_ns != now.mtime_ns:
            return "it was written again"
        return "it was written, renamed or linked again (its change time is another)"


class PinnedFile:
    """A file that is read in one state only; with its sha256 also in another of the same content.

    So one that was merely moved, linked or copied back is hashed and read on.
    """

    def __init__(self, path: Path, state: FileState, sha256: str | None = None) -> None:
        self.path = path
        self.state = state
        self.sha256 = sha256

    @contextmanager
    def open(self) -> Iterator[FileIO]:
        """The file, opened for reading. Raises FileChanged, before or after the block."""
        with opened(self.path) as (file, before):
            if before != self.state:
                self._confirm(file, before)
            yield file

    def _confirm(self, file: FileIO, now: FileState) -> None:
        known = self.sha256 is not None and now.size == self.state.size
        if not known or open_sha256(file) != self.sha256:
            raise changed(self.path, self.state, now)
        file.seek(0)
        self.state = now


@contextmanager
def opened(path: Path) -> Iterator[tuple[FileIO, FileState]]:
    """A file that is opened for reading, and its state. Raises FileChanged if that changes."""
    with open(path, "rb", buffering=0) as file:
        before = FileState.of(os.fstat(file.fileno()))
        try:
            yield file, before
        except UserError:
            _still(path, before, file)  # where it changed, that is the reason
            raise
        _still(path, before, file)


def _still(path: Path, before: FileState, file: FileIO) -> None:
    now = FileState.of(os.fstat(file.fileno()))
    if now != before:
        raise changed(path, before, now)


class Readings:
    """The files that a node reads by their paths, in the states that it found them in."""

    def __init__(self) -> None:
        self._states: dict[Path, FileState] = {}

    def add(self, paths: Iterable[Path]) -> None:
        """Add files that are to be read from now on. Raises UserError for one that is not there."""
        for path in paths:
            self._states.setdefault(path, state_of(path))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Context of what reads the files; one that changes meanwhile is what is wrong with it."""
        try:
            yield
        except UserError:
            self._check()
            raise
        self._check()

    def _check(self) -> None:
        unchanged(self._states, {path: state_of(path) for path in self._states})


def unchanged(before: Mapping[Path, FileState], now: Mapping[Path, FileState]) -> None:
    """Raise FileChanged for the first file of `now` that was in another state before."""
    for path, state in now.items():
        if state != before[path]:
            raise changed(path, before[path], state)


def state_of(path: Path) -> FileState:
    """The state of a file now. Raises UserError if it cannot be found."""
    try:
        return FileState.of(path.stat())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def changed(path: Path, before: FileState, now: FileState) -> FileChanged:
    """The error for a file that is in another state than that in which it was identified."""
    return FileChanged(f"{path} changed while it was in use: {before.changes(now)}", remedy=REMEDY)
