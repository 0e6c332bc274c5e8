"""Small weights solved side by side, so that what runs on one thread leaves no core idle."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

import torch

from stages.compute.row_tiles import one_threaded, shared_tile_pool

SMALL = 1 << 23
"""Elements of weight and Gram matrix up to which another is begun (float32 copies: some 0.3 GB)."""

T = TypeVar("T")


def fitting(cost: Sequence[int]) -> int:
    """How many may be under way at once, each taking so many elements; 1 where not even two."""
    costly = sorted(cost, reverse=True)
    most = min(len(cost), torch.get_num_threads())
    return max((n for n in range(2, most + 1) if sum(costly[:n]) <= SMALL), default=1)


def side_by_side(work: Sequence[Callable[[], T]], at_once: int) -> Iterator[T]:
    """What each of `work` gives, in order.

    One by one, each has all threads. Several at once share them, and run what is not cut in tiles
    on one thread each; tiles always do, so their bytes are the same either way.
    """
    if at_once == 1:
        yield from (one() for one in work)
        return
    with shared_tile_pool(), one_threaded(at_once) as drivers:
        begun: deque[Future[T]] = deque()
        try:
            for one in work:
                begun.append(drivers.submit(copy_context().run, one))
                if len(begun) > at_once:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
