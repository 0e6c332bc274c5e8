"""Measured speed of summing a Gram matrix on this machine."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from stages.calibrate.statistics.gram import Gram
from stages.compute.timing import least_seconds
from stages.compute.work import GRAM

COLUMNS, ROWS = 2048, 2048


def speeds(device: str, threads: int) -> Mapping[str, float]:
    """Kind of work (:mod:`stages.compute.work`) -> how much of it a second `device` does."""
    torch.set_num_threads(threads)
    x = torch.randn(ROWS, COLUMNS, device=device)
    given = x if device == "cpu" else x.to(torch.bfloat16)
    state = Gram.init(COLUMNS, device)
    seconds = least_seconds(lambda: Gram.update(state, given), device)
    return {GRAM: float(COLUMNS**2 * ROWS) / seconds}
