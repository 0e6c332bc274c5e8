"""Memory of GPUs that this process has allocated, now and at its peak.

Measured where torch has begun to use a GPU, and None elsewhere: torch is not imported for it. It is
what tensors take; the allocator's spare blocks and the CUDA context come on top.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def device_bytes() -> int | None:
    """Bytes that tensors take on all GPUs now."""
    cuda = _cuda()
    return None if cuda is None else _all(cuda, cuda.memory_allocated)


def peak_device_bytes() -> int | None:
    """The most bytes that tensors took on all GPUs since `reset_device_peak`."""
    cuda = _cuda()
    return None if cuda is None else _all(cuda, cuda.max_memory_allocated)


def reset_device_peak() -> None:
    """Let the peak begin at what is allocated now."""
    if (cuda := _cuda()) is not None:
        for index in range(cuda.device_count()):
            cuda.reset_peak_memory_stats(index)


def _all(cuda: Any, measure: Callable[[int], int]) -> int:
    return sum(measure(index) for index in range(cuda.device_count()))


def _cuda() -> Any:
    """torch.cuda where it is in use; torch may be in the middle of being imported."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    in_use = getattr(cuda, "is_initialized", None)
    return cuda if in_use is not None and in_use() else None
