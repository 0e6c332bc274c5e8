"""The observers by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from stages.compress.grid import QParams
from stages.compress.observers import minmax
from stages.compress.observers import mse as searched

# Chooses the parameters of a weight [out, in] under a Grid; takes importance=, global_scale= and
# the observer's own options by name.
Observe = Callable[..., QParams]

WIDER: dict[str, Any] = {"expand": 1.8, "maxshrink": 1 - 0.8 / 1.8, "grid": 200, "norm": 2.4}
"""From 1.8 times the range down to it: E2M1 has uneven steps, so many groups fit better there."""

OBSERVERS: dict[str, Observe] = {
    "minmax": minmax.observe,
    "mse": searched.mse,
    "imatrix": searched.imatrix,
    "nvfp4_expanded_mse": partial(searched.mse, **WIDER),
    "nvfp4_expanded_imatrix": partial(searched.imatrix, **WIDER),
    "gram": searched.gram,
    "conditional": searched.gram,  # the same search; GPTQ hands it conditional variances
}
