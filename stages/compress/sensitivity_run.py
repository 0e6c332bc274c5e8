"""Run `sensitivity`: try every candidate format on the modules of one layer.

Where rows are quantized each for itself, some of them stand for all.

With E a module's change, x its inputs and g the loss's derivatives by its outputs, the loss grows
by (g^T E x)^2 / 2 on average to second order, the labels being the model's own. Taking inputs and
derivatives, and the derivatives of different outputs, as independent makes it a sum over outputs,
E[g_o^2] (E H E^T)_oo / 2 for a mean Gram matrix H: K-FAC (arXiv:1503.05671, sections 2.1 and 3)
with a diagonal second factor. Such damages can be added over the modules of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.compress.grid import ROW_STRATEGIES
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.layer_inputs import statistics_of
from stages.compress.modifiers.base import Solver
from stages.compress.sensitivity import SensitivityConfig
from stages.compress.shared_scales import global_scales, gram_of, grids_of
from stages.compress.solve import solve_layer
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.output_error import ratio
from stages.compute.loops import warn_of_slow_loops
from stages.model.artifact_names import FISHER_FILE, SENSITIVITY
from stages.model.blueprint import Blueprint, LinearSpec
from stages.quantized.open import open_model
from stages.schemes.candidates import units_of
from stages.schemes.resolve import Resolved
from stages.schemes.scheme import SchemeGroup
from stages.schemes.sizes import label, linear_bytes

ROWS = 256
"""Rows of a weight that are tried, evenly spaced. The error of a row is within some tens of per
cent of that of another, so the mean of so many is within a few per cent of that of all."""


def run(config: SensitivityConfig, task: Task) -> None:
    """Write the relative errors and sizes of all candidates for the layer `task.member`."""
    config.numerics.apply()
    blueprint, device = Blueprint.load(task.inputs["model"]), config.numerics.device
    warn_of_slow_loops(device, task.warn)
    subgraph = blueprint.layers[task.index or 0]
    formats = units_of(config.scheme, blueprint)
    units = [unit for unit in formats.units if unit.layer == subgraph.name]
    layer = LayerState(
        subgraph=subgraph,
        tensors=LazyTensors(subgraph.tensors, open_model(task.inputs["source"], blueprint)),
        statistics=Statistics(statistics_of(task.inputs), device),
        resolved={},
        dtype=getattr(torch, blueprint.dtype),
    )
    shares = statistics_of(task.inputs)["gram"].meta["shares"]
    fisher = _fisher(task.inputs.get("gradients"))
    modules = {
        linear.name: _described(layer, linear, device)
        | {"share": share_of(linear.name, subgraph.name, shares)}
        for unit in units
        for linear in unit.linears
    }
    for done, (name, group) in enumerate(formats.formats.items()):
        task.progress(done / len(formats.formats), name)
        mine = [linear for unit in units if name in unit.candidates for linear in unit.linears]
        found = dict(tried(config.solver, layer, mine, name, group, fisher, device))
        for linear in mine:
            row = modules[linear.name]
            size = linear_bytes(linear, group, blueprint.dtype)
            row["candidates"][name] = found[linear.name] | {"bits": 8 * size / row["elements"]}
    labels = {name: label(group) for name, group in formats.formats.items()}
    content = {"layer": subgraph.name, "labels": labels, "modules": modules}
    task.outputs["out"].write_json(SENSITIVITY, content)


def _described(layer: LayerState, linear: LinearSpec, device: str) -> dict[str, Any]:
    """What is known of a module before anything is tried; `energy` is its outputs' squared norm."""
    weight = sampled(layer.tensors[f"{linear.name}.weight"]).to(device)
    energy = energy_of(weight, _gram(layer, linear.name).to(device))
    return {
        "elements": linear.in_features * linear.out_features,
        "energy": energy * linear.out_features / len(weight),
        "candidates": {},
    }


def _fisher(gradients: Artifact | None) -> dict[str, Tensor] | None:
    """Module -> float32 [out], mean squared derivatives; None where there are none."""
    return None if gradients is None else load_file(gradients.file(FISHER_FILE))


def sampled(weight: Tensor) -> Tensor:
    """At most `ROWS` rows of a weight [out, ...], evenly spaced."""
    if len(weight) <= ROWS:
        return weight
    rows = torch.linspace(0, len(weight) - 1, ROWS, dtype=torch.float64).long()
    return weight[rows.to(weight.device)]


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
    fisher: Mapping[str, Tensor] | None,
    device: str,
) -> Iterator[tuple[str, dict[str, float]]]:
    """(module, what it suffers) for each of `linears` in the format `group`.

    It suffers a `relative_error` of its outputs and, where `fisher` is known, a `damage`.
    """
    if group.weights is None:
        nothing = {"relative_error": 0.0} | ({} if fisher is None else {"damage": 0.0})
        yield from ((linear.name, dict(nothing)) for linear in linears)
        return
    resolved = {linear.name: Resolved(group=name, scheme=group) for linear in linears}
    state = replace(layer, resolved=resolved)
    grids = grids_of(state)
    scales = global_scales(state, grids)
    if group.weights.strategy in ROW_STRATEGIES:
        weights = (f"{linear.name}.weight" for linear in linears)
        state = replace(state, tensors=LazyTensors({}))
        state.tensors.update((name, sampled(layer.tensors[name])) for name in weights)
    for solved in solve_layer(state, solver, grids, scales, device=device):
        if solved.trouble is not None or solved.quantized is None:
            raise _failed(solved.trouble, solved.module)
        weight = state.tensors[f"{solved.module}.weight"].to(device).float()
        H = _gram(layer, solved.module).to(device)
        errors = row_energies(weight - solved.quantized.weight, H)
        energies = row_energies(weight, H)
        found = {"relative_error": ratio(float(errors.sum()), float(energies.sum()))}
        if fisher is not None:
            whole = layer.tensors[f"{solved.module}.weight"].to(device)
            found["damage"] = damage(
                fisher[solved.module].to(device),
                errors / max(1, layer.statistics.tokens(solved.module)),
                whole.float().square() @ H.diagonal(),
            )
        yield solved.module, found


def row_energies(rows: Tensor, H: Tensor) -> Tensor:
    """r H r^T for every row r of `rows` [n, in], float32 [n]; H float32 [in, in]."""
    return ((rows @ H) * rows).sum(dim=1).clamp_min(0)


def damage(fisher: Tensor, errors: Tensor, sizes: Tensor) -> float:
    """Half the sum over outputs of `fisher` [out] times mean squared error, in nats a token.

    errors: float32 [n] of all rows, or of those that `sampled` takes. Then the others are taken to
    have errors like theirs for their `sizes` [out] (of any unit).
    """
    felt = (fisher * sizes).double()
    if len(errors) == len(fisher):
        return 0.5 * float((fisher * errors).double().sum())
    mine, whole = float(sampled(felt).sum()), float(felt.sum())
    found = 0.5 * float((sampled(fisher) * errors).double().sum())
    return found * whole / mine if mine > 0 else 0.0


def _failed(error: NumericalError | None, module: str) -> StageFailed:
    if error is None:
        raise ValueError(f"{module} was not solved")
    return StageFailed(f"{module}: {error.reason}", remedy=error.remedy)
