"""Trying every candidate format on the modules of one layer.

Where rows are quantized each for itself, some of them stand for all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.compress.grid import ROW_STRATEGIES
from stages.compress.lazy import LazyTensors
from stages.compress.modifiers.base import Solver
from stages.compress.scales import global_scales, gram_of
from stages.compress.sensitivity import FILE
from stages.compress.solvers.error import relative_error
from stages.compress.solvers.errors import NumericalError
from stages.compress.solving import solve_layer
from stages.compress.state import LayerState
from stages.compress.statistics import Statistics
from stages.compress.work import statistics_of
from stages.formats.candidates import units_of
from stages.formats.convert import to_compressed_tensors
from stages.formats.resolve import Resolved
from stages.formats.scheme import SchemeGroup
from stages.formats.sizes import label, linear_bytes
from stages.model.blueprint import Blueprint, LinearSpec
from stages.weights import open_source

if TYPE_CHECKING:
    from stages.compress.sensitivity import SensitivityConfig

ROWS = 256
"""Rows of a weight that are tried, evenly spaced. The error of a row is within some tens of per
cent of that of another, so the mean of so many is within a few per cent of that of all."""


def run(config: SensitivityConfig, task: Task) -> None:
    """Write the relative errors and sizes of all candidates for the layer `task.member`."""
    config.numerics.apply()
    blueprint, device = Blueprint.load(task.inputs["model"]), config.numerics.device
    subgraph = blueprint.layers[task.index or 0]
    found = units_of(config.scheme, blueprint)
    units = [unit for unit in found.units if unit.layer == subgraph.name]
    layer = LayerState(
        subgraph=subgraph,
        tensors=LazyTensors(subgraph.tensors, open_source(task.inputs["source"])),
        statistics=Statistics(statistics_of(task.inputs), device),
        resolved={},
        dtype=getattr(torch, blueprint.dtype),
    )
    shares = statistics_of(task.inputs)["gram"].meta["shares"]
    modules = {
        linear.name: _described(layer, linear, device)
        | {"share": share_of(linear.name, subgraph.name, shares)}
        for unit in units
        for linear in unit.linears
    }
    for done, (name, group) in enumerate(found.formats.items()):
        task.progress(done / len(found.formats), name)
        mine = [linear for unit in units if name in unit.candidates for linear in unit.linears]
        errors = dict(tried(config.solver, layer, mine, name, group, device))
        for linear in mine:
            row = modules[linear.name]
            size = linear_bytes(linear, group, blueprint.dtype)
            row["candidates"][name] = {
                "relative_error": errors[linear.name],
                "bits": 8 * size / row["elements"],
            }
    labels = {name: label(group) for name, group in found.formats.items()}
    content = {"layer": subgraph.name, "labels": labels, "modules": modules}
    task.outputs["out"].write_json(FILE, content)


def _described(layer: LayerState, linear: LinearSpec, device: str) -> dict[str, Any]:
    """What is known of a module before anything is tried; `energy` is its outputs' squared norm."""
    weight = sampled(layer.tensors[f"{linear.name}.weight"]).to(device)
    energy = energy_of(weight, _gram(layer, linear.name).to(device))
    return {
        "elements": linear.in_features * linear.out_features,
        "energy": energy * linear.out_features / len(weight),
        "candidates": {},
    }


def sampled(weight: Tensor) -> Tensor:
    """At most `ROWS` rows of a weight [out, in], evenly spaced."""
    if len(weight) <= ROWS:
        return weight
    return weight[torch.linspace(0, len(weight) - 1, ROWS, dtype=torch.float64).long()]


def energy_of(weight: Tensor, H: Tensor) -> float:
    """tr(W H W^T): the squared norm of the outputs [out] for the inputs of H, float32 [in, in]."""
    w = weight.float()
    return float(((w @ H) * w).sum())


def share_of(module: str, layer: str, shares: Mapping[str, float]) -> float:
    """How much of the residual stream the block that holds `module` writes, in [0, 1].

    Of the whole layer where the block's output is no hidden state.
    """
    block = module.removeprefix(f"{layer}.").partition(".")[0]
    return shares[block] if block in shares else shares[""]


def _gram(layer: LayerState, name: str) -> Tensor:
    try:
        return gram_of(layer.statistics, name)
    except NumericalError as error:
        raise _failed(error, name) from error


def tried(
    solver: Solver,
    layer: LayerState,
    linears: Sequence[LinearSpec],
    name: str,
    group: SchemeGroup,
    device: str,
) -> Iterator[tuple[str, float]]:
    """(module, relative output error) of each of `linears` in the format `group`."""
    if group.weights is None:
        yield from ((linear.name, 0.0) for linear in linears)
        return
    formats = {linear.name: to_compressed_tensors(group) for linear in linears}
    resolved = {linear.name: Resolved(group=name, scheme=group) for linear in linears}
    state = replace(layer, resolved=resolved)
    measured = "gram" in solver.statistics()
    scales = global_scales(state, formats)
    if group.weights.strategy in ROW_STRATEGIES:
        weights = (f"{linear.name}.weight" for linear in linears)
        state = replace(state, tensors={name: sampled(layer.tensors[name]) for name in weights})
    for solved in solve_layer(state, solver, formats, scales, device=device):
        if solved.trouble is not None or solved.quantized is None:
            raise _failed(solved.trouble, solved.module)
        error = solved.relative_error
        if not measured or error is None:
            weight = state.tensors[f"{solved.module}.weight"].to(device)
            H = _gram(layer, solved.module).to(device)
            error = relative_error(weight, solved.quantized.weight, H)
        yield solved.module, error


def _failed(error: NumericalError | None, module: str) -> StageFailed:
    if error is None:
        raise ValueError(f"{module} was not solved")
    return StageFailed(f"{module}: {error.reason}", remedy=error.remedy)
