"""Wall time of an operation on a CPU or a GPU: the least of several runs."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

REPEATS = 5


def least_seconds(run: Callable[[], object], device: str, repeats: int = REPEATS) -> float:
    """Seconds of the fastest of `repeats` runs, after one that warms up."""
    run()
    found = []
    for _ in range(repeats):
        _wait(device)
        began = time.perf_counter()
        run()
        _wait(device)
        found.append(time.perf_counter() - began)
    return min(found)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)
