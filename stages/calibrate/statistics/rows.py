"""Sample of the rows of a Linear's input, for the rounding error of inputs."""

from __future__ import annotations

import torch
from torch import Tensor

KEPT = 256
"""Rows of a sample: each has as many rounding errors as there are channels, so sums settle."""
_SEED = 0x1E3779B97F4A7C15  # the golden ratio's, below the sign bit


class Rows:
    """State: float64 [k + 1, in + 1], k <= KEPT; result: float32 [k, in], rows as they were seen.

    The rows kept are those whose numbers, counted from 0, hash to the least: which they are depends
    on how many there are and on nothing else, however they are split into batches. A state's last
    row and column hold the count of all rows and the hashes of those kept.
    """

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        return torch.zeros(1, features + 1, dtype=torch.float64, device=device)

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        count = int(state[-1, 0])
        hashes = hashed(torch.arange(count, count + len(x), device=state.device))
        if len(state) > KEPT:  # once there are enough, few are nearer
            fresh = (hashes < state[-2, -1]).nonzero().flatten()
        else:
            fresh = hashes.argsort(stable=True)[:KEPT]
        rows = x[fresh.to(x.device)].to(state.device, torch.float64)
        last = state[-1:].clone()
        last[0, 0] += len(x)
        return _least(state[:-1], torch.cat((rows, hashes[fresh, None]), dim=1), last)

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        return _least(one[:-1], other[:-1], one[-1:] + other[-1:])

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        return state[:-1, :-1].float().contiguous()


def _least(some: Tensor, more: Tensor, last: Tensor) -> Tensor:
    rows = torch.cat((some, more))
    return torch.cat((rows[rows[:, -1].argsort(stable=True)[:KEPT]], last))


def hashed(numbers: Tensor) -> Tensor:
    """Whole numbers below 2**53, as float64, that look random: int64 [n] -> float64 [n].

    The finalizer of splitmix64 (doi:10.1145/2660193.2660195), of which the upper bits are kept.
    """
    z = (numbers + 1) * _SEED
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        z = (z ^ _right(z, shift)) * factor
    return _right(z ^ _right(z, 31), 11).double()


def _right(z: Tensor, shift: int) -> Tensor:
    """A shift that fills up with zeros, which torch's of signed integers does not."""
    return (z >> shift) & ((1 << (64 - shift)) - 1)
