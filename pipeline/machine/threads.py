"""Thread count of torch, put back after a call in somebody else's process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_threads() -> Iterator[None]:
    """Context after which torch uses as many threads as before; nothing is imported for it."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else None
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)
