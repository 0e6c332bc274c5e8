"""Read bytes of a file to a GPU by way of a small pinned buffer.

Straight into device memory, without a tensor of the same size in the memory of the host: a copy
from pinned pages runs at the speed of the bus, one from others at a fraction of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

PIECE = 64 << 20
"""Bytes of the buffer: pinned memory is scarce, and larger copies are no faster."""


class Staging:
    """A pinned buffer that is reused from tensor to tensor; a plain one where none can be had."""

    def __init__(self, size: int) -> None:
        self._buffer = _pinned(min(size, PIECE))

    def fill(self, length: int, device: str, read_into: Callable[[memoryview], None]) -> Tensor:
        """uint8 [length] on `device`; `read_into` fills what it is given with the next bytes."""
        import torch

        target = torch.empty(length, dtype=torch.uint8, device=device)
        step = max(1, len(self._buffer))
        for start in range(0, length, step):
            piece = self._buffer[: min(step, length - start)]
            read_into(piece.numpy().data)
            target[start : start + len(piece)].copy_(piece)
        return target


def _pinned(size: int) -> Tensor:
    import torch

    try:
        return torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=True)
    except RuntimeError:  # no GPU is in use, or the system lets this process pin no more
        return torch.empty(size, dtype=torch.uint8)
