"""sha256 of files, remembered by path, size and mtime, with other work run meanwhile.

The memory is one small JSON file in the user's cache folder ($XDG_CACHE_HOME/presswork/files.json,
else ~/.cache/presswork/files.json). Losing it costs time only. It is also how a stored result
finds the weights it speaks of after their folder was moved: by their content.
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
"""Bytes of which hashing takes about as long as it takes to begin something else."""

_work: ContextVar[Callable[[], None] | None] = ContextVar("work beside hashing", default=None)


@contextmanager
def while_hashing(work: Callable[[], None]) -> Iterator[None]:
    """Have `work` done beside the hashing in this context, each time that much has to be hashed."""
    before = _work.set(work)
    try:
        yield
    finally:
        _work.reset(before)


@contextmanager
def hashing(size: int) -> Iterator[None]:
    """Around the hashing of so many bytes; what is done beside it is done at the end, too.

    It is waited for, because modules that two threads import at once may be seen half made.
    """
    work = _work.get()
    if work is None or size < LONG:
        yield
        return
    beside = threading.Thread(target=work)
    beside.start()
    try:
        yield
    finally:
        beside.join()


THREADS = 4
SETTLED = 2.0  # seconds: a file younger than this could change again without its time changing

Memory = dict[str, tuple[int, int, str]]


def memory_file() -> Path:
    """Where the hashes are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "presswork" / "files.json"


def sha256_of(paths: Iterable[Path]) -> dict[Path, str]:
    """The sha256 of every file; only those that changed since the last time are read.

    Raises UserError for a file that cannot be read.
    """
    memory = _load()
    wanted = list(dict.fromkeys(paths))
    found: dict[Path, str] = {}
    fresh: Memory = {}
    try:
        states = {path: path.stat() for path in wanted}
        for path, state in states.items():
            length, mtime, known = memory.get(str(path.resolve()), (-1, -1, ""))
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
    """A file with this content that was hashed before and has not changed since."""
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


def _load() -> Memory:
    try:
        entries = json.loads(memory_file().read_bytes())["files"]
        return {str(p): (int(size), int(at), str(sha)) for p, (size, at, sha) in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # not there yet, or not ours: hash again


def _remember(fresh: Memory) -> None:
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
