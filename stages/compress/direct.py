"""Modules that round to nearest straight from the checkpoint's bfloat16: read, solved, let go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compress.solvers.direct import Direct, direct, fits
from stages.compress.state import LayerState


def solve_direct(
    layer: LayerState, solver: Solver, schemes: Mapping[str, QuantizationScheme], device: str
) -> Iterator[tuple[str, Direct]]:
    """(module, what it became) for those of `schemes` that need no more than their own weight.

    One weight is in memory at a time. A weight that is not finite is left to the solver, whose
    policy says what becomes of it.
    """
    if not isinstance(solver, Rtn) or solver.observer != "minmax" or device != "cpu":
        return
    for name, scheme in schemes.items():
        weight = layer.peek(f"{name}.weight")
        if fits(weight, scheme, layer.dtype):
            made = direct(weight, scheme)
            if made is not None:
                yield name, made


def parts_of(made: Direct, shape: tuple[int, ...], scheme: QuantizationScheme) -> dict[str, Tensor]:
    """The checkpoint's tensors by local name, as `stages.formats.pack.pack` has them."""
    if str(scheme.format) != "pack-quantized":
        return {"weight": made.codes, "weight_scale": made.scale}
    return {
        "weight_packed": made.codes,
        "weight_scale": made.scale,
        "weight_shape": torch.tensor(shape, dtype=torch.int64),
    }
