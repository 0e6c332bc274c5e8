"""Something useful to do while a model's files are hashed or its hub is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 0.25
"""Seconds after which a look at a model is a long one: its files are not known yet."""


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread beside what is inside, if that takes long; both are done at the end.

    It is waited for, because modules that two threads import at once may be seen half made.
    """
    timer = threading.Timer(PATIENCE, work)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
