"""Number formats and global scales of a layer's modules, and parameters of calibrated inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from stages.compress.compressed_tensors_math import global_scale_of_range, scale_and_zero_point
from stages.compress.grid import Grid, grid_of
from stages.compress.layer.state import LayerState
from stages.compress.layer.statistics import Statistics
from stages.compress.observers.activation_range import averaged, latest, searched, widest
from stages.compress.observers.qparams import global_scale_of
from stages.compress.solvers.numerical_error import NumericalError
from stages.formats.input_params import InputParams
from stages.schemes.quant_args import QArgs


def grids_of(layer: LayerState) -> dict[str, Grid]:
    """The number format of every module that is to be quantized, decided here once."""
    return {
        name: grid_of(found.scheme.weights, layer.dtype)
        for name, found in layer.resolved.items()
        if found.scheme.weights is not None
    }


def partners(layer: LayerState) -> dict[str, tuple[str, ...]]:
    """For every quantized module those that engines run together with it, itself included."""
    found: dict[str, tuple[str, ...]] = {name: (name,) for name in layer.resolved}
    for group in layer.subgraph.fused:
        mine = tuple(name for name in group if name in layer.resolved)
        found.update((name, mine) for name in mine)
    return found


def global_scales(layer: LayerState, grids: Mapping[str, Grid]) -> dict[str, Tensor]:
    """The weight's global scale, float32 [1], of every module whose format has one.

    Engines run fused modules as one weight, so those get the scale of the largest among them.
    """
    scales: dict[str, Tensor] = {}
    for name, group in partners(layer).items():
        grid = grids[name]
        if grid.strategy != "tensor_group":
            continue
        alike = [other for other in group if grids[other] == grid]
        own = [_global_scale(layer, other, grid) for other in alike]
        scales[name] = torch.stack(own).amin(dim=0)  # the larger the weights, the smaller
    return scales


def _global_scale(layer: LayerState, name: str, grid: Grid) -> Tensor:
    scale = global_scale_of(layer.tensors[f"{name}.weight"], grid)
    if scale is None:
        raise ValueError(f"{name} has no global scale")
    return scale


def input_params(
    statistics: Statistics,
    group: Iterable[str],
    args: QArgs | None,
    dtype: torch.dtype,
) -> InputParams:
    """Calibrated parameters for the input of modules that engines run as one.

    Raises NumericalError where calibration saw nothing, or nothing but zeros.
    """
    if args is None or args.dynamic is True:
        return InputParams()
    names = list(group)
    ranges = [found for name in names if (found := _seen(statistics, name, args, dtype))]
    if not ranges:
        raise _no_tokens(names[0])
    low = torch.stack([pair[0] for pair in ranges]).amin().to(dtype)
    high = torch.stack([pair[1] for pair in ranges]).amax().to(dtype)
    if not bool(torch.isfinite(low) & torch.isfinite(high) & (high > low)):
        raise NumericalError(
            name=names[0],
            reason=f"its inputs range from {float(low)} to {float(high)} in calibration",
            remedy="calibrate with more or other samples, or put the module in scheme.ignore",
        )
    if args.strategy == "tensor_group":
        return InputParams(global_scale=global_scale_of_range(low, high).cpu())
    scale, zero_point = scale_and_zero_point(low, high, grid_of(args, dtype))
    return InputParams(scale=scale.cpu(), zero_point=None if args.symmetric else zero_point.cpu())


def _seen(
    statistics: Statistics, name: str, args: QArgs, dtype: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """The range of a module's input as the observer of `args` sees it; None without tokens."""
    options = args.observer_kwargs or {}
    if args.observer == "mse":
        histogram = statistics.histogram(name)
        grid = grid_of(args, dtype)
        return None if histogram is None else searched(histogram, grid, **options)
    batches = statistics.range(name)
    if batches is None:
        return None
    if args.observer == "minmax":
        return averaged(batches, options.get("averaging_constant", 0.01))
    return latest(batches) if args.observer == "memoryless_minmax" else widest(batches)


def _no_tokens(name: str) -> NumericalError:
    return NumericalError(
        name=name,
        reason="calibration sent no token through it",
        remedy="say calibrate.experts=all, give more samples, or say what to do with on_failure",
    )


def gram_of(statistics: Statistics, name: str) -> Tensor:
    """The Gram matrix of a module's inputs; raises NumericalError where no token was seen."""
    H = statistics.gram(name)
    if H is None:
        raise _no_tokens(name)
    return H
