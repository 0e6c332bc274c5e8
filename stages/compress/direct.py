"""Modules that round to nearest straight from the checkpoint's bfloat16: read, solved, let go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from stages.compress.grid import grid_of
from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compress.solvers.direct import Direct, codes_shape, direct, fits, suits
from stages.compress.state import LayerState
from stages.model.blueprint import LinearSpec
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
    source, linears = layer.source, {linear.name: linear for linear in layer.subgraph.linears}
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
        found += _parts(linears[name], scheme)
    return found + [source.spec(stored) for stored in left.values()]


def _rounds(solver: Solver, device: str) -> bool:
    return isinstance(solver, Rtn) and solver.observer == "minmax" and device == "cpu"


def _parts(linear: LinearSpec, scheme: QuantizationScheme) -> list[TensorSpec]:
    """The tensors of :func:`parts_of`, without their data."""
    shape = (linear.out_features, linear.in_features)
    if (args := scheme.weights) is None:
        raise ValueError("the scheme has no weight format")
    packed = str(scheme.format) == "pack-quantized"
    floats = str(getattr(args.type, "value", args.type)) == "float"
    codes, kind = ("weight_packed", "I32") if packed else ("weight", "F8_E4M3" if floats else "I8")
    parts = [
        (codes, codes_shape(shape, scheme), kind),
        ("weight_scale", grid_of(args).scale_shape(*shape), "BF16"),
    ]
    if packed:
        parts.append(("weight_shape", (2,), "I64"))
    return [
        TensorSpec(name=f"{linear.prefix}.{part}", shape=size, dtype=dtype)
        for part, size, dtype in parts
    ]


def parts_of(made: Direct, shape: tuple[int, ...], scheme: QuantizationScheme) -> dict[str, Tensor]:
    """The checkpoint's tensors by local name, as `stages.formats.pack.pack` has them."""
    if str(scheme.format) != "pack-quantized":
        return {"weight": made.codes, "weight_scale": made.scale}
    return {
        "weight_packed": made.codes,
        "weight_scale": made.scale,
        "weight_shape": torch.tensor(shape, dtype=torch.int64),
    }
