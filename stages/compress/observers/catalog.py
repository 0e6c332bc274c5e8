"""The observers by the names that configs use."""

from __future__ import annotations

from typing import Any, Protocol

from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from stages.compress.grid import QParams
from stages.compress.observers import gram, imatrix, minmax, mse


class Observe(Protocol):
    """Chooses the parameters of a weight [out, in]; ``options`` are the observer's own."""

    def __call__(
        self,
        weight: Tensor,
        args: QuantizationArgs,
        *,
        importance: Tensor | None = None,
        global_scale: Tensor | None = None,
        **options: Any,
    ) -> QParams: ...


OBSERVERS: dict[str, Observe] = {
    "minmax": minmax.observe,
    "mse": mse.observe,
    "imatrix": imatrix.observe,
    "gram": gram.observe,
}
