"""Memory that is used again and again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Scratch:
    """One buffer for tensors of which only the latest is wanted.

    Memory fresh from the system is zeroed page by page first: on a virtual machine that can take
    longer than to read a file from the page cache into it.
    """

    def __init__(self) -> None:
        self._buffer: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)

    def take(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes with any contents; those taken before are overwritten."""
        if len(self._buffer) < size:
            self._buffer = np.empty(0, dtype=np.uint8)  # not both at once
            self._buffer = np.empty(size, dtype=np.uint8)
        return self._buffer[:size]
