"""Cache of weight energies w H w^T, which several number formats of one run share.

They take a quarter of a GPTQ solution's matrix products and say nothing of the format, so jobs of
one process that differ in their format compute them once. What is remembered has the bytes that
computing gives.
"""

from __future__ import annotations

from collections.abc import Hashable
from threading import Lock

from torch import Tensor

MOST_BYTES = 64 << 20
"""Of what is remembered, after which no more is: the rows of some 100 billion weights."""


class Energies:
    """Tensors by key, on the CPU; the first that come stay."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._known: dict[Hashable, Tensor] = {}
        self._bytes = 0
        self._lock = Lock()

    def recall(self, key: Hashable | None) -> Tensor | None:
        """What was remembered under `key`; None for a key that is None."""
        return None if key is None else self._known.get(key)

    def remember(self, key: Hashable | None, energy: Tensor) -> None:
        """Keep a copy, if it has a key and there is room."""
        with self._lock:
            if key is None or key in self._known or self._bytes + energy.nbytes > self._most:
                return
            self._known[key] = energy.cpu().clone()
            self._bytes += energy.nbytes


KNOWN = Energies()
"""Those of this process, as of any function whose results are cached."""
