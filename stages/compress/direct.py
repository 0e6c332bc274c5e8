"""Modules that round to nearest straight from the checkpoint's bfloat16: read, solved, let go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compress.solvers.direct import Direct, direct, fits, suits
from stages.compress.state import LayerState
from stages.formats.parts import expected_parts
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.scratch import Scratch
from stages.weights.source import TensorSpec


def solve_direct(
    layer: LayerState,
    solver: Solver,
    schemes: Mapping[str, QuantizationScheme],
    device: str,
    *,
    reuse: bool = False,
) -> Iterator[tuple[str, Direct]]:
    """(module, what it became) for those of `schemes` that need no more than their own weight.

    One weight is in memory at a time. With `reuse` the next module's codes overwrite those before.
    A weight that is not finite is left to the solver, whose policy says what becomes of it.
    """
    if not _rounds(solver, device):
        return
    weights, codes = (Scratch(), Scratch()) if reuse else (None, None)
    for name, scheme in schemes.items():
        weight = layer.peek(f"{name}.weight", weights)
        if fits(weight, scheme, layer.dtype):
            made = direct(weight, scheme, None if codes is None else codes.take)
            if made is not None:
                yield name, made


def direct_specs(
    layer: LayerState, solver: Solver, schemes: Mapping[str, QuantizationScheme], device: str
) -> list[TensorSpec] | None:
    """What the layer's file will hold, from headers alone: of no layer but one that is all direct.

    None where a module of `schemes` is not for :func:`solve_direct`, or has more to be stored than
    its weight, and for a source that is not plain files.
    """
    source, prefixes = layer.source, {own.name: own.prefix for own in layer.subgraph.linears}
    if not _rounds(solver, device) or not isinstance(source, SafetensorsSource) or layer.changed:
        return None
    found: list[TensorSpec] = []
    left = dict(layer.subgraph.tensors)
    for name, scheme in schemes.items():
        spec = source.spec(left.pop(f"{name}.weight"))
        inputs = scheme.input_activations
        plain = spec.dtype == "BF16" and layer.dtype == torch.bfloat16
        if not (plain and suits(spec.shape, scheme)) or (inputs and inputs.dynamic is not True):
            return None
        parts = expected_parts(scheme, spec.shape, spec.dtype).items()
        found += [
            TensorSpec(name=f"{prefixes[name]}.{part}", shape=shape, dtype=dtype)
            for part, (shape, dtype) in parts
        ]
    return found + [source.spec(stored) for stored in left.values()]


def _rounds(solver: Solver, device: str) -> bool:
    return isinstance(solver, Rtn) and solver.observer == "minmax" and device == "cpu"


def parts_of(made: Direct, shape: tuple[int, ...], scheme: QuantizationScheme) -> dict[str, Tensor]:
    """The checkpoint's tensors by local name, as `stages.formats.pack.pack` has them."""
    if str(scheme.format) != "pack-quantized":
        return {"weight": made.codes, "weight_scale": made.scale}
    return {
        "weight_packed": made.codes,
        "weight_scale": made.scale,
        "weight_shape": torch.tensor(shape, dtype=torch.int64),
    }
