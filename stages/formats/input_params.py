"""Input quantization of one module: quantization args and calibrated qparams. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
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

    def on(self, device: torch.device) -> InputParams:
        """The same on another device; they are read from files to the CPU."""
        scale, zero_point, global_scale = (
            None if value is None else value.to(device)
            for value in (self.scale, self.zero_point, self.global_scale)
        )
        return InputParams(scale=scale, zero_point=zero_point, global_scale=global_scale)


@dataclass(frozen=True, kw_only=True, slots=True)
class InputRule:
    """Quantization args of a module's input, with calibrated qparams if it has any."""

    args: QuantizationArgs
    params: InputParams
