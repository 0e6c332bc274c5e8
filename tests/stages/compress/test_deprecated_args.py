"""Plugins that know the number format as QuantizationArgs work for one more release, and warn."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from pipeline.registry import Registry
from stages.compress.grid import QParams, Quantized, grid_of
from stages.compress.modifiers.base import Problem
from stages.compress.modifiers.observer import Observer, observe_by
from stages.compress.modifiers.rtn import Rtn
from stages.compress.observers import minmax
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.observers.qparams import by_scale, global_scale_of, qparams_of
from stages.compress.solvers.gptq import gptq
from stages.compress.solvers.rtn import rtn
from stages.formats.compressed_tensors_bridge import to_args
from stages.schemes.quant_args import QArgs
from tests.stages.compress.solvers.reference import problem as random_problem

FORMATS = {
    "int4": QArgs(num_bits=4, strategy="group", group_size=32, symmetric=False),
    "fp8 block": QArgs(type="float", strategy="block", block_structure=[16, 32]),
    "nvfp4": QArgs(
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        scale_dtype="float8_e4m3fn",
        zp_dtype="float8_e4m3fn",
    ),
    "mxfp4": QArgs(
        num_bits=4,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype="uint8",
        zp_dtype="uint8",
    ),
}


def problem_of(name: str, dtype: torch.dtype = torch.float16) -> Problem:
    weight, H = random_problem(rows=32, columns=64)
    return Problem(weight=weight, H=H, grid=grid_of(FORMATS[name], dtype), global_scale=None)


def same(one: Quantized, other: Quantized) -> bool:
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("weight", "scale", "zero_point", "global_scale")
        if getattr(one, name) is not None
    )


@pytest.mark.parametrize("name", FORMATS)
def test_the_args_of_a_problem_are_those_of_its_scheme(name: str) -> None:
    problem = problem_of(name)
    with pytest.warns(DeprecationWarning, match=r"Problem\.args is deprecated: use Problem\.grid"):
        args = problem.args
    assert isinstance(args, QuantizationArgs)
    assert args == to_args(FORMATS[name])
    assert problem.dtype == torch.float16


@pytest.mark.parametrize("name", FORMATS)
def test_a_solver_written_the_old_way_gives_what_the_new_way_gives(name: str) -> None:
    problem = problem_of(name)
    with pytest.warns(DeprecationWarning):
        weight, args = problem.weight, problem.args
        options = {"global_scale": problem.global_scale, "dtype": problem.dtype}
        old = rtn(weight, args, minmax.observe(weight, args, **options))
    grid = problem.grid
    assert grid_of(args, problem.dtype).codes == grid.codes
    assert same(rtn(weight, grid, minmax.observe(weight, grid)), old)
    with pytest.warns(DeprecationWarning, match="gptq takes a Grid"):
        old = gptq(weight, problem.H, args, dtype=problem.dtype)
    assert same(gptq(weight, problem.H, grid), old)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_every_shipped_observer_can_be_called_the_old_way(observer: str) -> None:
    problem = problem_of("int4")
    assert problem.H is not None
    given = {"importance": problem.H.diagonal(), "global_scale": None}
    with pytest.warns(DeprecationWarning, match="takes a Grid"):
        old = OBSERVERS[observer](
            problem.weight, to_args(FORMATS["int4"]), dtype=torch.float16, **given
        )
    new = OBSERVERS[observer](problem.weight, problem.grid, **given)
    assert torch.equal(old.scale, new.scale) and old.scale.dtype == torch.float16


class Percentile(Observer):
    """The example of stages/docs/extend/observer.md, as the release before this one had it."""

    version: ClassVar[int] = 1

    def observe(  # the parameters of the release before
        self,
        weight: Tensor,
        args: QuantizationArgs,
        *,
        importance: Tensor | None,
        global_scale: Tensor | None,
        dtype: torch.dtype,
    ) -> QParams:
        if global_scale is None:
            global_scale = global_scale_of(weight, args, dtype)
        values = by_scale(weight, grid_of(args, dtype)).float()
        low, high = (values.quantile(q, dim=-1) for q in (0.01, 0.99))
        return qparams_of(low, high, args, global_scale=global_scale, dtype=dtype)


@pytest.mark.parametrize("name", ["int4", "nvfp4"])
def test_an_observer_written_the_old_way_is_handed_args_and_dtype(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry.load()
    monkeypatch.setitem(registry.entries.setdefault("observer", {}), "old", Percentile)
    monkeypatch.setattr(Registry, "load", staticmethod(lambda: registry))
    problem = problem_of(name)
    with pytest.warns(DeprecationWarning, match="has no dtype any more"):
        found = Rtn(observer="old").solve(problem)
    grid, shared = problem.grid, global_scale_of(problem.weight, problem.grid)
    values = by_scale(problem.weight, grid).float()
    low, high = (values.quantile(q, dim=-1) for q in (0.01, 0.99))
    wanted = qparams_of(low, high, grid, global_scale=shared)
    assert torch.equal(found.scale, wanted.scale)
    assert observe_by("minmax") is minmax.observe
