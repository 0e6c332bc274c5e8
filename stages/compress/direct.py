"""Modules that round to nearest straight from the checkpoint's bfloat16: read, solved, let go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from stages.compress.result import Compressed
from stages.compress.solvers.direct import Direct, direct, fits
from stages.compress.state import LayerState
from stages.formats.layout import goes_straight, layout_of
from stages.formats.plain import PACKED, plain_parts
from stages.formats.qargs import QArgs
from stages.formats.scheme import SchemeGroup
from stages.model.blueprint import LinearSpec
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.scratch import Scratch
from stages.weights.source import TensorSpec


def solve_direct(
    layer: LayerState, names: Iterable[str], *, reuse: bool = False
) -> Iterator[tuple[str, Direct]]:
    """(module, what it became) for those of `names` that need no more than their own weight.

    One weight is in memory at a time. With `reuse` the next module's codes overwrite those before.
    A weight that is not finite is left to the solver, whose policy says what becomes of it.
    """
    weights, codes = (Scratch(), Scratch()) if reuse else (None, None)
    for name in names:
        scheme = layer.resolved[name].scheme
        args, layout = _weights(scheme), layout_of(scheme)
        weight = layer.peek(f"{name}.weight", weights)
        if fits(weight, args, layout, layer.dtype):
            made = direct(weight, args, layout, None if codes is None else codes.take)
            if made is not None:
                yield name, made


def announced(layer: LayerState) -> list[TensorSpec] | None:
    """What the layer's file will hold, from headers alone: of no layer but one that is all direct.

    None where a module is not for :func:`solve_direct`, or has more to be stored than its weight,
    and for a source that is not plain files.
    """
    source, prefixes = layer.source, {own.name: own.prefix for own in layer.subgraph.linears}
    if not isinstance(source, SafetensorsSource) or layer.changed:
        return None
    found: list[TensorSpec] = []
    left = dict(layer.subgraph.tensors)
    for name, resolved in layer.resolved.items():
        spec = source.spec(left.pop(f"{name}.weight"))
        if spec.dtype != "BF16" or layer.dtype != torch.bfloat16:
            return None
        if not goes_straight(resolved.scheme, spec.shape):
            return None
        args, layout = _weights(resolved.scheme), layout_of(resolved.scheme)
        for part, (shape, dtype) in plain_parts(spec.shape, args, layout, spec.dtype).items():
            found.append(TensorSpec(name=f"{prefixes[name]}.{part}", shape=shape, dtype=dtype))
    return found + [source.spec(stored) for stored in left.values()]


def parts_of(made: Direct, shape: tuple[int, ...], layout: str) -> dict[str, Tensor]:
    """The checkpoint's tensors by local name, as `stages.formats.pack.pack` has them."""
    if layout != PACKED:
        return {"weight": made.codes, "weight_scale": made.scale}
    return {
        "weight_packed": made.codes,
        "weight_scale": made.scale,
        "weight_shape": torch.tensor(shape, dtype=torch.int64),
    }


def record_direct(
    result: Compressed,
    linear: LinearSpec,
    scheme: SchemeGroup,
    made: Direct,
    *,
    solver: str,
    inputs: Mapping[str, Tensor] = MappingProxyType({}),
) -> None:
    """Take a module that came packed; `inputs`: the parameters of its input by local name."""
    shape = (linear.out_features, linear.in_features)
    packed = {**parts_of(made, shape, layout_of(scheme)), **inputs}
    sums = {"rows": made.rows, "columns": made.columns}
    result.record(linear, scheme, packed, sums, solver=solver, relative_error=made.relative_error)


def _weights(scheme: SchemeGroup) -> QArgs:
    if scheme.weights is None:
        raise ValueError("the scheme has no weight format")
    return scheme.weights
