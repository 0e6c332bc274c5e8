"""Choose windows of a token stream, or pad samples. Pure functions of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]


def choose(count: int, wanted: int, seed: int) -> list[int]:
    """`wanted` different indices below `count`, in the order of a keyed hash.

    Because it is a hash and not a random generator, the choice is the same with every version of a
    library; the first n of a larger choice are the choice of n.
    """
    ranked = sorted(range(count), key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
    return ranked[:wanted]


def window_count(stream: int, length: int, bos: int | None) -> int:
    """Number of windows of `length` tokens in a stream of `stream` tokens."""
    return stream // _step(length, bos)


def windows(stream: Ids, chosen: Sequence[int], length: int, bos: int | None) -> Ids:
    """The chosen windows [N, length] of a stream [tokens], each beginning with `bos` if not None.

    Windows follow each other without overlap; a remainder shorter than a window is left out.
    """
    step = _step(length, bos)
    cut = stream[: window_count(len(stream), length, bos) * step].reshape(-1, step)[list(chosen)]
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
