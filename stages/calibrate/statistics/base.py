"""What a statistic is."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Statistic(Protocol):
    """Gathers something about rows x of a Linear's input, chunk by chunk, in float32.

    A state may be merged with that of other rows; `finish` gives what is stored.
    """

    @staticmethod
    def init(features: int, device: str) -> Tensor:
        """The state for no rows at all of a Linear with `features` inputs."""
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
