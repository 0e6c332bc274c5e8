"""SHA-256 of files, cached by path, size, times and inode; a callback runs while many are hashed.

The cache is one small JSON file in the user's cache folder ($XDG_CACHE_HOME/presswork/files.json,
else ~/.cache/presswork/files.json). Losing it only costs time. A stored result also finds its
weights through it, by their content, after their folder was moved.

Archives, image layers and `cp -p` give files the mtime that they had elsewhere; the change time is
the system's own. Other content under the same path with the same size, times and inode is believed
to be the old one: `rehash` reads the files in any case.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from pipeline.errors import UserError
from pipeline.outside import FileState, PinnedFile, opened
from pipeline.sha256 import open_sha256

LONG = 1 << 28
"""From this many bytes on, hashing takes long enough to run something else meanwhile."""
THREADS = 4
FINE, COARSE = 0.1, 2.0
"""Seconds after which a file cannot change again without a change of its times: many times the tick
of the kernel's clock, and the steps of file systems that keep no fractions of a second."""

Known = tuple[int, int, int, int]
"""Size, mtime and ctime in ns, inode. No device: its number may be another after a restart."""

Hashes = dict[str, tuple[Known, str]]
"""Absolute path -> the state in which a file was hashed, and its sha256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hashed:
    """The sha256 of a file, and the state in which it had that content."""

    sha256: str
    state: FileState

    def pinned(self, path: Path) -> PinnedFile:
        """The file at `path`, to be read while it has this content."""
        return PinnedFile(path, self.state, self.sha256)


_callback: ContextVar[Callable[[], None] | None] = ContextVar("run while hashing", default=None)


@contextmanager
def while_hashing(work: Callable[[], None]) -> Iterator[None]:
    """Call `work` on another thread each time that many bytes are hashed in this context."""
    before = _callback.set(work)
    try:
        yield
    finally:
        _callback.reset(before)


@contextmanager
def hashing(size: int) -> Iterator[None]:
    """Run the callback of :func:`while_hashing` while `size` bytes are hashed, and wait for it.

    Without waiting, a module that two threads import at once could be seen half initialized.
    """
    callback = _callback.get()
    if callback is None or size < LONG:
        yield
        return
    thread = threading.Thread(target=callback)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def memory_file() -> Path:
    """The file in which hashes are cached."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "presswork" / "files.json"


def sha256_of(paths: Iterable[Path], *, rehash: bool = False) -> dict[Path, str]:
    """The sha256 of every file; see `identified`."""
    return {path: found.sha256 for path, found in identified(paths, rehash=rehash).items()}


def identified(paths: Iterable[Path], *, rehash: bool = False) -> dict[Path, Hashed]:
    """The sha256 and the state of every file; without `rehash` only changed ones are read.

    Raises UserError for a file that cannot be read, FileChanged for one that changes meanwhile.
    """
    cached = {} if rehash else _load()
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, Hashed] = {}
    fresh: Hashes = {}
    try:
        for path in wanted:
            state = FileState.of(path.stat())
            known, sha256 = cached.get(str(path.resolve()), (None, ""))
            if known == _known(state):
                found[path] = Hashed(sha256=sha256, state=state)
        todo = [path for path in wanted if path not in found]
        started = time.time()
        size = sum(path.stat().st_size for path in todo)
        with hashing(size), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            for path, made in zip(todo, pool.map(_hashed, todo), strict=True):
                found[path] = made
                if _settled(made.state, started):
                    fresh[str(path.resolve())] = (_known(made.state), made.sha256)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    if fresh:
        _remember(fresh)
    return {path: found[path] for path in wanted}


def find_pinned(sha256: str, size: int) -> PinnedFile | None:
    """A file with this content that was hashed earlier and has not changed since."""
    for text, (known, digest) in _load().items():
        if digest == sha256 and known[0] == size and (state := _state(Path(text))) is not None:
            if _known(state) == known:
                return PinnedFile(Path(text), state, sha256)
    return None


def _hashed(path: Path) -> Hashed:
    with opened(path) as (file, state):
        return Hashed(sha256=open_sha256(file), state=state)


def _settled(state: FileState, now: float) -> bool:
    steps = FINE if state.ctime_ns % 1000 else COARSE
    return max(state.mtime_ns, state.ctime_ns) / 1e9 < now - steps


def _known(state: FileState) -> Known:
    return state.size, state.mtime_ns, state.ctime_ns, state.inode


def _state(path: Path) -> FileState | None:
    try:
        return FileState.of(path.stat())
    except OSError:
        return None


def _load() -> Hashes:
    try:
        entries = json.loads(memory_file().read_bytes())["states"]
        return {
            str(path): ((int(size), int(mtime), int(ctime), int(inode)), str(sha))
            for path, ((size, mtime, ctime, inode), sha) in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # missing, or not a file of ours: hash again


def _remember(fresh: Hashes) -> None:
    path = memory_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            entries = {p: entry for p, entry in _load().items() if Path(p).exists()} | fresh
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
            with os.fdopen(handle, "w") as file:
                json.dump({"states": entries}, file)
            os.replace(name, path)
    except OSError:
        return  # a read-only or full home costs hashing again next time, nothing else
