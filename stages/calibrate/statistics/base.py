"""Protocol of statistics of a Linear's inputs."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Statistic(Protocol):
    """A statistic of the rows x of a Linear's input, gathered chunk by chunk in float32.

    States of different rows may be merged; `finish` gives the stored tensor. One with the attribute
    `takes_half` that is True is handed bfloat16 and float16 as they are where they lie on a GPU.
    """

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        """The state before any rows, for a Linear with `features` inputs."""
        ...

    @staticmethod
    def update(state: Tensor, x: Tensor) -> Tensor:
        """The state with rows `x` float32 [n, in], n >= 1, added; may reuse `state`'s memory."""
        ...

    @staticmethod
    def merge(one: Tensor, other: Tensor) -> Tensor:
        """The state for the rows of both."""
        ...

    @staticmethod
    def finish(state: Tensor) -> Tensor:
        """The stored tensor; may reuse `state`'s memory."""
        ...


HALVES = (torch.bfloat16, torch.float16)


def given_to(kind: Statistic, x: Tensor) -> Tensor:
    """Rows `x` of any floating dtype as the statistic takes them."""
    as_it_is = getattr(kind, "takes_half", False) and x.dtype in HALVES and not x.is_cpu
    return x if as_it_is else x.to(torch.float32)
