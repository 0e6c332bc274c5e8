"""Deprecated calls of solvers and observers: QuantizationArgs and `dtype` in place of a Grid.

Plugins written before a :class:`~stages.compress.grid.Grid` was carried by the problem work for
one more release, with a DeprecationWarning.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

from stages.compress.grid import Grid, QParams, grid_of

P = ParamSpec("P")
R = TypeVar("R")


def takes_args(function: Callable[P, R]) -> Callable[P, R]:
    """Let `function`, which takes a Grid, take QuantizationArgs and `dtype=` as well."""

    @wraps(function)
    def call(*values: Any, **named: Any) -> R:
        given = [*values, *named.values()]
        if not any(_is_args(value) or isinstance(value, torch.dtype) for value in given):
            return function(*values, **named)
        warn(f"{function.__name__} takes a Grid: give it problem.grid, and no dtype")
        dtype = next((v for v in given if isinstance(v, torch.dtype)), torch.bfloat16)

        def new(value: Any) -> Any:
            return grid_of(value, dtype) if _is_args(value) else value

        positional = [new(value) for value in values if not isinstance(value, torch.dtype)]
        named.pop("dtype", None)
        return function(*positional, **{name: new(value) for name, value in named.items()})

    return call


def takes_grid(observe: Callable[..., QParams]) -> Callable[..., QParams]:
    """Let a plugin's observer that wants QuantizationArgs and `dtype` take a Grid."""
    if "dtype" not in inspect.signature(observe).parameters:
        return observe

    @wraps(observe)
    def call(weight: torch.Tensor, grid: Grid, **named: Any) -> QParams:
        from stages.compress.compressed_tensors_math import quantization_args

        warn("Observer.observe(weight, grid, *, importance, global_scale) has no dtype any more")
        return observe(weight, quantization_args(grid), dtype=grid.dtype, **named)

    return call


def warn(message: str) -> None:
    """Warn the caller of the function that calls this of what works for this release only."""
    text = f"{message}; the old way goes with the next release"
    warnings.warn(text, DeprecationWarning, stacklevel=3)


def _is_args(value: object) -> bool:
    """Whether a value says how a weight is quantized and is no Grid."""
    return hasattr(value, "num_bits") and hasattr(value, "strategy") and not isinstance(value, Grid)
