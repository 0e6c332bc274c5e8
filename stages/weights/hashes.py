"""SHA-256 of files, cached by path, size and mtime; a callback runs while large files are hashed.

The cache is one small JSON file in the user's cache folder ($XDG_CACHE_HOME/presswork/files.json,
else ~/.cache/presswork/files.json). Losing it only costs time. A stored result also finds its
weights through it, by their content, after their folder was moved.
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
from pathlib import Path

from filelock import FileLock

from pipeline.errors import UserError
from pipeline.sha256 import file_sha256

LONG = 1 << 28
"""From this many bytes on, hashing takes long enough to run something else meanwhile."""
THREADS = 4
SETTLED = 2.0  # seconds: a younger file could change again without a change of its mtime

Hashes = dict[str, tuple[int, int, str]]
"""Absolute path -> size, mtime in ns, sha256."""

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


def sha256_of(paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of every file; only files that have changed since the last time are read.

    Raises UserError for a file that cannot be read.
    """
    cached = _load()
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, str] = {}
    fresh: Hashes = {}
    try:
        states = {path: path.stat() for path in wanted}
        for path, state in states.items():
            length, mtime, known = cached.get(str(path.resolve()), (-1, -1, ""))
            if (length, mtime) == (state.st_size, state.st_mtime_ns):
                found[path] = known
        todo = [path for path in wanted if path not in found]
        started = time.time()
        size = sum(states[path].st_size for path in todo)
        with hashing(size), ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
            for path, digest in zip(todo, pool.map(file_sha256, todo), strict=True):
                found[path] = digest
                state = states[path]
                if state.st_mtime < started - SETTLED:
                    fresh[str(path.resolve())] = (state.st_size, state.st_mtime_ns, digest)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be read: {error.strerror}") from error
    if fresh:
        _remember(fresh)
    return found


def find_content(sha256: str, size: int) -> Path | None:
    """A file with this content that was hashed earlier and has not changed since."""
    for text, (known_size, mtime, known) in _load().items():
        if known == sha256 and known_size == size and _unchanged(Path(text), size, mtime):
            return Path(text)
    return None


def _unchanged(path: Path, size: int, mtime: int) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (size, mtime)


def _load() -> Hashes:
    try:
        entries = json.loads(memory_file().read_bytes())["files"]
        return {str(p): (int(size), int(at), str(sha)) for p, (size, at, sha) in entries.items()}
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
                json.dump({"files": entries}, file)
            os.replace(name, path)
    except OSError:
        return  # a read-only or full home costs hashing again next time, nothing else
