"""Choose windows of a token stream, or pad samples. Pure functions of arrays and streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from heapq import heappush, heappushpop
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
T = TypeVar("T")

TOGETHER = 1 << 20
"""Tokens of a stream that are cut into windows together."""


def choose(count: int, wanted: int, seed: int) -> list[int]:
    """`wanted` different indices below `count`, in the order of a keyed hash.

    Because it is a hash and not a random generator, the choice is the same with every version of a
    library; the first n of a larger choice are the choice of n.
    """
    return sorted(range(count), key=lambda i: _rank(i, seed))[:wanted]


class Candidates(Generic[T]):
    """The items of a stream that `choose` may choose of it, whose length is not known yet.

    Iterating gives each with its number: those that are among the best `wanted` of what came
    before, which are `wanted` x (1 + ln(count / wanted)) or so. `count` is how many came so far.
    """

    def __init__(self, items: Iterable[T], wanted: int, seed: int) -> None:
        self.items, self.wanted, self.seed, self.count = items, wanted, seed, 0

    def __iter__(self) -> Iterator[tuple[int, T]]:
        worst: list[int] = []  # a heap of negative ranks: the worst of those kept is the first
        for number, item in enumerate(self.items):
            self.count += 1
            rank = -int.from_bytes(_rank(number, self.seed), "big")
            if len(worst) < self.wanted:
                heappush(worst, rank)
                yield number, item
            elif heappushpop(worst, rank) != rank:
                yield number, item


def _rank(number: int, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{number}".encode()).digest()


def stream_windows(
    pieces: Iterable[Sequence[int]], length: int, bos: int | None, stride: int | None = None
) -> Iterator[Ids]:
    """All `windows` [length] of the stream that `pieces` make, one after the other.

    With a `stride` they overlap: one begins every so many tokens.
    """
    step = stride or _step(length, bos)
    held: list[Ids] = []
    size = 0
    for piece in pieces:
        held.append(np.asarray(piece, dtype=np.int32))
        size += len(piece)
        if size >= max(TOGETHER, _step(length, bos)):
            stream = np.concatenate(held)
            count = window_count(size, length, bos, stride)
            yield from windows(stream, range(count), length, bos, stride)
            held = [stream[count * step :]]
            size = len(held[0])
    if held and size >= _step(length, bos):
        count = window_count(size, length, bos, stride)
        yield from windows(np.concatenate(held), range(count), length, bos, stride)


def window_count(stream: int, length: int, bos: int | None, stride: int | None = None) -> int:
    """Number of windows of `length` tokens in a stream of `stream` tokens."""
    width = _step(length, bos)
    return max(0, (stream - width) // (stride or width) + 1)


def windows(
    stream: Ids, chosen: Sequence[int], length: int, bos: int | None, stride: int | None = None
) -> Ids:
    """The chosen windows [N, length] of a stream [tokens], each beginning with `bos` if not None.

    Windows follow each other without overlap, or begin every `stride` tokens; a remainder shorter
    than a window is left out.
    """
    width = _step(length, bos)
    starts = (stride or width) * np.asarray(chosen, dtype=np.int64)
    cut: Ids = stream[starts[:, None] + np.arange(width)]
    if bos is None:
        return cut
    return np.concatenate([np.full((len(cut), 1), bos, dtype=np.int32), cut], axis=1)


def padded(samples: Sequence[Sequence[int]], padding: int) -> tuple[Ids, Ids]:
    """Samples of unequal length, padded on the right to [N, longest], and lengths [N]."""
    lengths = np.array([len(sample) for sample in samples], dtype=np.int32)
    ids = np.full((len(samples), int(lengths.max())), padding, dtype=np.int32)
    for row, sample in zip(ids, samples, strict=True):
        row[: len(sample)] = sample
    return ids, lengths


def _step(length: int, bos: int | None) -> int:
    return length if bos is None else length - 1
