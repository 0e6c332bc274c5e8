"""Thread pool over row tiles of a fixed size: the same bytes for any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_shared: ContextVar[ThreadPoolExecutor | None] = ContextVar("shared tile pool", default=None)


@contextmanager
def tile_pool() -> Iterator[ThreadPoolExecutor]:
    """A pool with as many workers as torch has threads, each running torch on one thread.

    A matrix product that the library splits may sum in another order for another number of
    threads; a tile that one thread computes does not. torch's own setting is restored at the end.
    """
    if (shared := _shared.get()) is not None:
        yield shared
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_threaded(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


@contextmanager
def shared_tile_pool() -> Iterator[None]:
    """Share one pool among all calls of :func:`tile_pool` in this context."""
    with tile_pool() as pool:
        before = _shared.set(pool)
        try:
            yield
        finally:
            _shared.reset(before)


def one_threaded(threads: int) -> ThreadPoolExecutor:
    """A pool of workers that run torch on one thread each."""
    return ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))


def row_tiles(rows: int, size: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, stop)`` for tiles of ``size`` rows (the last may be smaller)."""
    with tile_pool() as pool:
        starts = range(0, rows, size)
        list(pool.map(lambda start: work(start, min(start + size, rows)), starts))


def even_tiles(rows: int, most: int, work: Callable[[int, int], None], multiple: int = 1) -> None:
    """Call ``work(start, stop)`` one after the other for equal tiles of at most ``most`` rows.

    Tiles are whole multiples of ``multiple`` rows (the last may be smaller), one at least.
    """
    units = -(-rows // multiple)
    tiles = max(1, -(-units // max(1, most // multiple)))
    size = max(1, -(-units // tiles)) * multiple
    for start in range(0, rows, size):
        work(start, min(start + size, rows))
