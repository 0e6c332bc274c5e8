"""Round-to-nearest from file to file, one weight (or some rows of it) at a time.

compressed-tensors, which brings all of transformers, takes longer to import than such a layer takes
to be written: the runner imports it beside these nodes, for those that come after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.stage import Task
from stages.compress.layer.state import LayerState
from stages.compress.layer.writer import Compressed
from stages.compress.layer_inputs import layer_state, recipe_of
from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compress.modifiers.rtn_route import (
    DTYPE,
    STORED,
    RoundedWeight,
    goes_straight,
    is_fused,
)
from stages.compress.solvers.rtn_fused import Direct, Take, direct, magnitudes
from stages.compress.solvers.rtn_fused_kernels import Bits
from stages.compute.row_tiles import shared_tile_pool
from stages.formats.layer_artifact import SHARD
from stages.model.blueprint import LinearSpec
from stages.schemes.layouts import PACKED, codes_part, layout_of, plain_parts
from stages.schemes.protocols import WeightFormat, spans
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup
from stages.weights.dtypes import dtype_name
from stages.weights.positional_writer import PlacedFile
from stages.weights.row_bands import WIDE, Files, InFile, Matrix, files_of
from stages.weights.safetensors_file import Scratch
from stages.weights.source import TensorSpec

if TYPE_CHECKING:
    from stages.compress.config import CompressConfig

Put = Callable[[int, Tensor], None]


class NotFiniteError(Exception):
    """A weight that is not finite: the policy of the solver, which may be another, decides."""


def direct_in_bands(
    matrix: Matrix, args: WeightFormat, layout: str, put: Put, take: Take
) -> Direct | None:
    """What :func:`direct` makes of the whole weight, to the bit; its codes have no memory.

    `put(first, codes)` is given the codes of some rows, good until it returns.
    """
    one = args.strategy == "tensor"
    known = _largest_of_all(matrix, args) if one else None
    parts: list[Direct] = []
    for start, stop in matrix.bands(1 if one else spans(args, *matrix.shape)[0]):
        made = direct(matrix.read(start, stop), args, layout, take, known)
        if made is None:
            return None
        put(start, made.codes)
        parts.append(_without_codes(made))
    columns = torch.stack([part.columns for part in parts]).sum(dim=0) % 2**32
    return Direct(
        codes=torch.cat([part.codes for part in parts]),
        scale=parts[0].scale if one else torch.cat([part.scale for part in parts]),
        rows=torch.cat([part.rows for part in parts]),
        columns=columns,
        errors=np.concatenate([part.errors for part in parts]),
    )


def _largest_of_all(matrix: Matrix, args: WeightFormat) -> Bits:
    found: Bits = np.max([magnitudes(matrix.read(*band), args) for band in matrix.bands()], axis=0)
    return found


def _without_codes(made: Direct) -> Direct:
    return Direct(
        codes=made.codes.to("meta"),
        scale=made.scale,
        rows=made.rows,
        columns=made.columns,
        errors=made.errors,
    )


def solve_direct(layer: LayerState, names: Iterable[str]) -> Iterator[tuple[str, Direct]]:
    """(module, what it became) for those of `names` that need no more than their own weight.

    One weight is in memory at a time. A weight that is not finite is left to the solver, whose
    policy says what becomes of it.
    """
    for name in names:
        scheme = layer.resolved[name].scheme
        args, layout = _weights(scheme), layout_of(scheme)
        weight = layer.peek(f"{name}.weight")
        stored, dtype = dtype_name(weight.dtype), str(layer.dtype).removeprefix("torch.")
        if is_fused(args, layout, tuple(weight.shape), stored, dtype):
            made = direct(weight, args, layout)
            if made is not None:
                yield name, made


def solve_to_file(
    layer: LayerState, source: Files, file: PlacedFile
) -> Iterator[tuple[str, Direct]]:
    """As :func:`solve_direct`, of all modules of a layer that was :func:`announced` for `file`.

    The next module's codes overwrite those before. Of a weight that is large some rows are in
    memory at a time; its codes are in the file then. Raises NotFiniteError.
    """
    weights, codes = Scratch(), Scratch()
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
        if made is None:
            raise NotFiniteError(name)
        yield name, made


def is_straight(config: CompressConfig, layer: LayerState) -> bool:
    """Whether the layer can be rounded from the files that its source reads; looks at headers."""
    source = files_of(layer.source)
    if source is None:
        return False
    specs = {name: source.spec(layer.subgraph.tensors[f"{name}.weight"]) for name in layer.resolved}
    weights = [
        RoundedWeight(scheme=found.scheme, shape=specs[name].shape, stored=specs[name].dtype)
        for name, found in layer.resolved.items()
    ]
    dtype = str(layer.dtype).removeprefix("torch.")
    return goes_straight(config.modifiers, config.numerics.device, dtype, weights)


def announced(layer: LayerState, source: Files) -> list[TensorSpec]:
    """What the file of a layer that :func:`is_straight` will hold, from headers alone."""
    prefixes = {linear.name: linear.prefix for linear in layer.subgraph.linears}
    found: list[TensorSpec] = []
    shared = layer.subgraph.shared
    left = {name: t for name, t in layer.subgraph.tensors.items() if name not in shared}
    for name, resolved in layer.resolved.items():
        spec = source.spec(left.pop(f"{name}.weight"))
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


def warm_up(config: CompressConfig) -> None:
    """Round a weight of one group of each format: the first use of a compiled loop is slow."""
    for group in config.scheme.formats():
        if group.weights is None:
            continue
        one = RoundedWeight(scheme=group, shape=(1, group.weights.group_size or 32), stored=STORED)
        if goes_straight(config.modifiers, config.numerics.device, DTYPE, [one]):
            weight = torch.ones(one.shape, dtype=torch.bfloat16)
            direct(weight, group.weights, layout_of(group))


def run(config: CompressConfig, task: Task) -> bool:
    """Compress the layer `task.member` module by module; False, and nothing done, if it cannot."""
    config.numerics.apply()
    layer, draft = layer_state(config, task), task.outputs["weights"]
    if not is_straight(config, layer):
        return False
    try:
        made = rounded(layer, config.solver or Rtn(), draft.path / SHARD, task.progress)
    except NotFiniteError:
        return False
    made.write(draft, layer.dtype)
    draft.meta["recipe"] = recipe_of(config, {})
    return True


def rounded(
    layer: LayerState, solver: Solver, path: Path, progress: Callable[[float, str], None]
) -> Compressed:
    """The layer in the file `path`, each module written as soon as it is rounded.

    Raises NotFiniteError where a weight is not finite; the file is no whole one then.
    """
    source = _files(layer)
    linears = {linear.name: linear for linear in layer.subgraph.linears}
    with shared_tile_pool(), PlacedFile(path, announced(layer, source)) as file:
        made = Compressed(file=file)
        for name, found in solve_to_file(layer, source, file):
            scheme = layer.resolved[name].scheme
            record_direct(made, linears[name], scheme, found, solver=solver.kind)
            progress(len(made.modules) / len(layer.resolved), f"{solver.kind} {name}")
        made.finish(layer, {})
    return made


def _files(layer: LayerState) -> Files:
    source = files_of(layer.source)
    if source is None:
        raise TypeError(f"{type(layer.source).__name__} is no source of plain files")
    return source
