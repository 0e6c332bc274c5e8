"""Input quantization of one module: quantization args and calibrated qparams. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressed_tensors.quantization import QuantizationArgs
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class InputParams:
    """Calibrated qparams of a module's input; None where its format has no such tensor.

    scale: [1] in the model's dtype; zero_point: int8 [1]; global_scale: float32 [1].
    """

    scale: Tensor | None = None
    zero_point: Tensor | None = None
    global_scale: Tensor | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class InputRule:
    """Quantization args of a module's input, with calibrated qparams if it has any."""

    args: QuantizationArgs
    params: InputParams
