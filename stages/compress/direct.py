"""Modules that round to nearest straight from the checkpoint's bfloat16: read, solved, let go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from stages.compress.bands import direct_in_bands
from stages.compress.result import Compressed
from stages.compress.solvers.direct import Direct, direct, fits
from stages.compress.state import LayerState
from stages.model.blueprint import LinearSpec
from stages.schemes.layouts import PACKED, codes_part, goes_straight, layout_of, plain_parts
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup
from stages.weights.matrix import WIDE, InFile
from stages.weights.placed import PlacedFile
from stages.weights.safetensors_source import SafetensorsSource
from stages.weights.scratch import Scratch
from stages.weights.source import TensorSpec


def solve_direct(layer: LayerState, names: Iterable[str]) -> Iterator[tuple[str, Direct]]:
    """(module, what it became) for those of `names` that need no more than their own weight.

    One weight is in memory at a time. A weight that is not finite is left to the solver, whose
    policy says what becomes of it.
    """
    for name in names:
        scheme = layer.resolved[name].scheme
        args, layout = _weights(scheme), layout_of(scheme)
        weight = layer.peek(f"{name}.weight")
        if fits(weight, args, layout, layer.dtype):
            made = direct(weight, args, layout)
            if made is not None:
                yield name, made


def solve_to_file(layer: LayerState, file: PlacedFile) -> Iterator[tuple[str, Direct]]:
    """As :func:`solve_direct`, of all modules of a layer that was :func:`announced` for `file`.

    The next module's codes overwrite those before. Of a weight that is large some rows are in
    memory at a time; its codes are in the file then.
    """
    source, weights, codes = layer.source, Scratch(), Scratch()
    if not isinstance(source, SafetensorsSource):
        raise TypeError(f"{type(source).__name__} is no source of plain files")
    prefixes = {linear.name: linear.prefix for linear in layer.subgraph.linears}
    for name, resolved in layer.resolved.items():
        args, layout = _weights(resolved.scheme), layout_of(resolved.scheme)
        spec = source.spec(layer.subgraph.tensors[f"{name}.weight"])
        matrix = InFile(source, spec, weights)
        put = partial(file.put_rows, f"{prefixes[name]}.{codes_part(layout)}")
        if spec.bytes > WIDE:
            made = direct_in_bands(matrix, args, layout, put, codes.take)
        else:
            made = direct(matrix.read(0, matrix.shape[0]), args, layout, codes.take)
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
    found = {codes_part(layout): made.codes, "weight_scale": made.scale}
    if layout == PACKED:
        found["weight_shape"] = torch.tensor(shape, dtype=torch.int64)
    return found


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
