"""The observers by the names that configs use."""

from __future__ import annotations

from collections.abc import Callable

from stages.compress.grid import QParams
from stages.compress.observers import gram, imatrix, minmax, mse

# Chooses the parameters of a weight [out, in]; takes importance=, global_scale=, dtype= and the
# observer's own options by name.
Observe = Callable[..., QParams]

OBSERVERS: dict[str, Observe] = {
    "minmax": minmax.observe,
    "mse": mse.observe,
    "imatrix": imatrix.observe,
    "gram": gram.observe,
    "conditional": gram.observe,  # the same search; GPTQ hands it conditional variances
}
