"""Solvers, observers, transforms and statistics never write into the tensors they are given.

A caller may hold a view of the same memory: the stacked weights of a layer, a mapped file. Shapes
are those where a copy is easily taken for granted: one row is contiguous however it is transposed,
and 193 rows leave a last tile of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from pipeline.registry import Registry
from stages.compress.grid import column_scale, expand, grid_of, round_to
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers.base import Problem, Solver, Transform
from stages.compress.modifiers.rtn_route import DTYPE, STORED, is_fused
from stages.compress.observers.activation_range import averaged, latest, searched, widest
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.observers.qparams import global_scale_of, qparams_of
from stages.compress.observers.range import bounds
from stages.compress.solvers.cholesky import damped, upper_factor
from stages.compress.solvers.output_error import relative_error
from stages.compress.solvers.rtn import dequantized, rtn
from stages.compress.solvers.rtn_fused import direct
from stages.compress.transforms.smoothquant import rescale_gram, smoothing_scales
from stages.quantized.compressed_tensors import numbers_of
from stages.quantized.stored_weight import Stored
from tests.stages.compress.modifiers.test_smoothquant import state
from tests.stages.model.tiny import tiny

E4M3 = torch.float8_e4m3fn
FORMATS = {
    "int4 group": QuantizationArgs(num_bits=4, strategy="group", group_size=32),
    "int4 asymmetric": QuantizationArgs(
        num_bits=4, strategy="group", group_size=32, symmetric=False
    ),
    "int8 channel": QuantizationArgs(num_bits=8, strategy="channel"),
    "int8 tensor": QuantizationArgs(num_bits=8, strategy="tensor"),
    "fp8 block": QuantizationArgs(type="float", strategy="block", block_structure=[16, 32]),
    "nvfp4": QuantizationArgs(
        num_bits=4, type="float", strategy="tensor_group", group_size=16, scale_dtype=E4M3
    ),
    "mxfp4": QuantizationArgs(
        num_bits=4, type="float", strategy="group", group_size=32, scale_dtype=torch.uint8
    ),
}
ROWS = (1, 193)
COLUMNS = 64
DTYPES = (torch.float32, torch.bfloat16)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda weight: weight.clone(),
    "transposed": lambda weight: weight.T.contiguous().T,
    "strided": lambda weight: weight.repeat_interleave(2, dim=0).repeat_interleave(2, dim=1)[
        ::2, ::2
    ],
}


def every_weight() -> Iterator[tuple[str, Tensor, Tensor]]:
    """(what it is, a weight [rows, 64], the Gram matrix of its inputs) for all that is above."""
    for rows, (layout, lay_out), dtype in product(ROWS, LAYOUTS.items(), DTYPES):
        weight, H = given(rows)
        yield f"{rows} rows, {layout}, {dtype}", lay_out(weight.to(dtype)), H


@contextmanager
def unchanged(*tensors: Tensor | None, what: str = "") -> Iterator[None]:
    """Fail unless the memory of every tensor, its whole storage, is byte for byte as it was."""
    storages = [tensor.untyped_storage() for tensor in tensors if tensor is not None]
    before = [storage.clone() for storage in storages]
    yield
    for number, (storage, old) in enumerate(zip(storages, before, strict=True)):
        assert same_bytes(storage, old), (
            f"tensor {number} of {len(storages)} was written to: {what}"
        )


def same_bytes(one: torch.UntypedStorage, other: torch.UntypedStorage) -> bool:
    bytes_of = (torch.tensor([], dtype=torch.uint8).set_(storage) for storage in (one, other))
    return torch.equal(*bytes_of)


def kinds_of(base: type) -> list[str]:
    """The modifiers, by name, that are subclasses of `base`."""
    registry = Registry.load()
    return [kind for kind in registry.kinds("modifier") if issubclass(made(kind), base)]


def made(kind: str) -> type:
    found: type = Registry.load().get("modifier", kind)
    return found


def given(rows: int) -> tuple[Tensor, Tensor]:
    """A weight [rows, 64], float32, and the Gram matrix of its inputs."""
    random = torch.Generator().manual_seed(rows)
    inputs = torch.randn(200, COLUMNS, generator=random)
    return torch.randn(rows, COLUMNS, generator=random) * 0.05, inputs.T @ inputs


def stored_as(weight: Tensor, args: QuantizationArgs) -> Stored:
    """The weight as a quantized source holds it."""
    grid = grid_of(args)
    qparams = OBSERVERS["minmax"](weight, grid)
    rounded = rtn(weight, grid, qparams)
    scale, zero = expand(qparams, grid, len(weight))
    column = column_scale(grid, weight.shape[1])
    codes = (rounded.weight / scale[:, column] + zero[:, column]).round()
    zero_point = qparams.zero_point
    return Stored(
        grid=numbers_of(args),
        codes=codes.to(torch.int8 if args.type == "int" else torch.float32),
        scale=qparams.scale,
        zero_point=None if zero_point is None else zero_point.to(torch.int8),
        global_scale=qparams.global_scale,
    )


def solver_of(kind: str) -> Solver:
    solver: Solver = made(kind)(**{"round_scales": True} if kind == "keep" else {})
    return solver


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", kinds_of(Solver))
def test_no_solver_writes_into_what_it_is_given(kind: str, name: str) -> None:
    args, solver = FORMATS[name], solver_of(kind)
    for what, weight, H in every_weight():
        shared = torch.tensor([3000.0]) if name == "nvfp4" and not solver.keeps else None
        stored = stored_as(weight, args) if solver.keeps else None
        problem = Problem(
            weight=weight,
            H=H,
            grid=grid_of(args),
            global_scale=shared,
            stored=stored,
        )
        held = (
            (stored.codes, stored.scale, stored.zero_point, stored.global_scale) if stored else ()
        )
        with unchanged(weight, H, shared, *held, what=what):
            found = solver.solve(problem)
        assert found.weight.shape == weight.shape


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("observer", OBSERVERS)
def test_no_observer_writes_into_what_it_is_given(observer: str, name: str) -> None:
    grid = grid_of(FORMATS[name])
    for what, weight, H in every_weight():
        importance = H.diagonal()
        shared = global_scale_of(weight, grid)
        with unchanged(weight, importance, shared, what=what):
            qparams = OBSERVERS[observer](weight, grid, importance=importance, global_scale=shared)
        held = (qparams.scale, qparams.zero_point, qparams.global_scale)
        with unchanged(weight, *held, what=what):
            rtn(weight, grid, qparams)
            dequantized(weight.float(), qparams, grid)


@pytest.mark.parametrize("name", FORMATS)
def test_arithmetic_of_scales_and_errors_leaves_its_operands(name: str) -> None:
    weight, H = given(40)
    args = FORMATS[name]
    grid = grid_of(args)
    low, high = bounds(weight, grid)
    shared = global_scale_of(weight, grid)
    order = torch.arange(COLUMNS).flip(0)
    with unchanged(weight, H, low, high, shared, order):
        qparams = qparams_of(low, high, grid, global_scale=shared)
        round_to(weight, grid.codes)
        round_to(low, grid.scales)
        upper_factor(damped(H, 0.01), order)
        relative_error(weight, weight.bfloat16(), H)
        relative_error(weight, weight.bfloat16())
    with unchanged(qparams.scale, qparams.zero_point, qparams.global_scale):
        expand(qparams, grid, 40)
    for part in (weight.bfloat16(), weight.bfloat16()[:1]):
        if is_fused(args, layout := "int-quantized", tuple(part.shape), STORED, DTYPE):
            with unchanged(part):
                direct(part, args, layout)


@pytest.mark.parametrize("name", ["int8 tensor", "int8 asymmetric", "fp8"])
def test_observers_of_inputs_leave_what_calibration_saw(name: str) -> None:
    args = {
        "int8 tensor": FORMATS["int8 tensor"],
        "int8 asymmetric": QuantizationArgs(num_bits=8, strategy="tensor", symmetric=False),
        "fp8": QuantizationArgs(num_bits=8, type="float", strategy="tensor"),
    }[name]
    for count in (1, 5):
        random = torch.Generator().manual_seed(count)
        batches = torch.randn(count, 2, generator=random).sort(dim=1).values
        histogram = torch.rand(count + 1, 2, generator=random).double()
        with unchanged(batches, histogram):
            widest(batches), latest(batches), averaged(batches, 0.1)
            searched(histogram, grid_of(args))


class Held(Statistics):
    """Statistics that hand out the same tensors again and again."""

    def __init__(self, *words: Any) -> None:
        super().__init__(*words)
        self.tensors: dict[tuple[str, str], Tensor | None] = {}

    def _read(self, kind: str, module: str, dtype: torch.dtype = torch.float32) -> Tensor | None:
        key = (kind, self.leader(module))
        if key not in self.tensors:
            self.tensors[key] = super()._read(kind, module, dtype)
        return self.tensors[key]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "qwen2"])
@pytest.mark.parametrize("kind", kinds_of(Transform))
def test_no_transform_writes_into_the_tensors_of_a_layer(
    kind: str, family: str, tmp_path: Path
) -> None:
    model = tiny(family, tmp_path / "model", num_hidden_layers=4)
    layer = state(model, tmp_path / "statistics")
    layer.statistics.__class__ = Held
    held = layer.statistics
    assert isinstance(held, Held)
    held.tensors = {}
    for linear in layer.subgraph.linears:
        for read in (held.gram, held.absmax, held.absmean, held.range):
            read(linear.name)
    transform: Transform = made(kind)(**{"pairs": ["norm", "linear"]})
    with unchanged(*layer.tensors.values(), *held.tensors.values()):
        transform.rewrite(layer)
        assert layer.changed
        for linear in layer.subgraph.linears:
            for read in (held.gram, held.absmax, held.absmean, held.range):
                read(linear.name)


def test_smoothing_leaves_magnitudes_and_gram_matrix() -> None:
    x, w, H = torch.rand(COLUMNS), torch.rand(COLUMNS), torch.rand(COLUMNS, COLUMNS)
    with unchanged(x, w, H):
        rescale_gram(H, smoothing_scales(x, w))


def statistics() -> Iterable[str]:
    return Registry.load().kinds("statistic")


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("kind", statistics())
def test_no_statistic_writes_into_the_inputs_that_it_sees(kind: str, rows: int) -> None:
    """A state may be reused, as its protocol says; the rows that are added to it may not."""
    statistic: Any = Registry.load().get("statistic", kind)
    x, y = torch.randn(rows, 24), torch.randn(rows, 24)
    with unchanged(x, y):
        one = statistic.update(statistic.init(24, "cpu"), x)
        other = statistic.update(statistic.init(24, "cpu"), y)
        with unchanged(one, other):
            both = statistic.merge(one, other)
        statistic.finish(both)
