"""Something useful to do while many bytes are hashed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
