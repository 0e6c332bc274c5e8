"""Run `sensitivity`: try every candidate format on the modules of one layer.

Where rows are quantized each for itself, some of them stand for all. A candidate is tried as
`compress` would go about it: transforms first, which may divide what a module gives (then its error
counts as if it were multiplied back), a pruner, the solver. Where a candidate quantizes inputs,
their rounding errors count too, on the sample of rows that calibration keeps:
:mod:`stages.compress.transforms.candidate_loss`.

With E a module's change, x its inputs and g the loss's derivatives by its outputs, the loss grows
by (g^T E x)^2 / 2 on average to second order, the labels being the model's own. Taking inputs and
derivatives, and the derivatives of different outputs, as independent makes it a sum over outputs,
E[g_o^2] (E H E^T)_oo / 2 for a mean Gram matrix H: K-FAC (arXiv:1503.05671, sections 2.1 and 3)
with a diagonal second factor. Such damages can be added over the modules of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.compress.config import CompressConfig
from stages.compress.grid import ROW_STRATEGIES, Grid
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.layer_inputs import blueprint_of, statistics_of
from stages.compress.modifiers.base import Pruner, Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compress.pairs.input_errors import input_errors
from stages.compress.sensitivity import ROWS, SensitivityConfig
from stages.compress.shared_scales import global_scales, gram_of, grids_of, partners
from stages.compress.solve import Solved, solve_layer
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.output_error import ratio
from stages.compute.loops import warn_of_slow_loops
from stages.model.artifact_names import FISHER_FILE, SENSITIVITY
from stages.model.blueprint import LinearSpec
from stages.model.pairs.proven import PAIRS
from stages.quantized.open import open_model
from stages.schemes.candidates import units_of
from stages.schemes.resolve import Resolved
from stages.schemes.sizes import label, linear_bytes


def run(config: SensitivityConfig, task: Task) -> None:
    """Write the relative errors and sizes of all candidates for the layer `task.member`."""
    config.numerics.apply()
    device = config.numerics.device
    blueprint = blueprint_of(task.inputs["model"], task.inputs.get(PAIRS))
    warn_of_slow_loops(device, task.warn)
    subgraph = blueprint.layers[task.index or 0]
    formats = units_of(config.scheme, blueprint)
    units = [unit for unit in formats.units if unit.layer == subgraph.name]
    source = open_model(task.inputs["source"], blueprint)

    def fresh() -> LayerState:
        return LayerState(
            subgraph=subgraph,
            tensors=LazyTensors(subgraph.tensors, source),
            statistics=Statistics(statistics_of(task.inputs), device),
            resolved={},
            dtype=getattr(torch, blueprint.dtype),
        )

    layer = fresh()
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
        if group.weights is None:
            found = {linear.name: unchanged(fisher) for linear in mine}
        else:
            trial = Trial.of(config.tries, layer, mine, Resolved(group=name, scheme=group), fresh)
            found = dict(trial.results(fisher, device))
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


def unchanged(fisher: Mapping[str, Tensor] | None) -> dict[str, float]:
    """What a module suffers that stays as it is."""
    return {"relative_error": 0.0} | ({} if fisher is None else {"damage": 0.0})


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """Modules of a layer that get one format: as they were in `before`, transformed in `layer`."""

    before: LayerState
    layer: LayerState
    solver: Solver
    pruner: Pruner | None
    samples: bool
    """Whether some of the rows stand for all."""

    @staticmethod
    def of(
        tries: CompressConfig,
        before: LayerState,
        linears: Sequence[LinearSpec],
        resolved: Resolved,
        fresh: Callable[[], LayerState],
    ) -> Trial:
        """`linears` in the format `resolved`, once transforms have changed a `fresh` layer."""
        formats = {linear.name: resolved for linear in linears}
        layer = before
        if tries.transforms:
            layer = replace(fresh(), resolved=formats)
            for transform in tries.transforms:
                transform.rewrite(layer)
        weights = resolved.scheme.weights
        return Trial(
            before=before,
            layer=replace(layer, resolved=formats),
            solver=tries.solver or Rtn(),
            pruner=tries.pruner,
            samples=weights is not None and weights.strategy in ROW_STRATEGIES,
        )

    def results(
        self, fisher: Mapping[str, Tensor] | None, device: str
    ) -> Iterator[tuple[str, dict[str, float]]]:
        """(module, what it suffers): `relative_error` and, where `fisher` is known, `damage`."""
        grids = grids_of(self.layer)
        scales = global_scales(self.layer, grids)
        state = replace(self.layer, tensors=LazyTensors({}))
        state.tensors.update(
            (f"{name}.weight", self.rows(self.layer, name)) for name in self.layer.resolved
        )
        for solved in self.solved(state, grids, scales, device):
            weight = state.tensors[f"{solved.module}.weight"].to(device).float()
            if solved.trouble is not None or solved.quantized is None:
                raise _failed(solved.trouble, solved.module)
            errors, energies = self.errors(solved.module, weight, solved.quantized.weight, device)
            found = {"relative_error": ratio(float(errors.sum()), float(energies.sum()))}
            if fisher is not None:
                whole = self.before.tensors[f"{solved.module}.weight"].to(device)
                H = _gram(self.before, solved.module).to(device)
                found["damage"] = damage(
                    fisher[solved.module].to(device),
                    errors / max(1, self.before.statistics.tokens(solved.module)),
                    whole.float().square() @ H.diagonal(),
                )
            yield solved.module, found

    def solved(
        self,
        state: LayerState,
        grids: Mapping[str, Grid],
        scales: Mapping[str, Tensor],
        device: str,
    ) -> Iterator[Solved]:
        """The modules as the solver leaves them; rounded where it fails and may be replaced."""
        for solved in solve_layer(
            state, self.solver, grids, scales, device=device, pruner=self.pruner
        ):
            if solved.trouble is None or self.solver.on_failure == "error":
                yield solved
                continue
            one = {solved.module: grids[solved.module]}
            yield from solve_layer(state, Rtn(), one, scales, device=device, pruner=self.pruner)

    def rows(self, layer: LayerState, module: str) -> Tensor:
        """The rows of a module's weight that are tried."""
        weight = layer.tensors[f"{module}.weight"]
        return sampled(weight) if self.samples else weight

    def errors(
        self, module: str, weight: Tensor, quantized: Tensor, device: str
    ) -> tuple[Tensor, Tensor]:
        """Squared errors and squared outputs of the rows [n] that are tried, as they were before.

        `weight` is what was solved, `quantized` what became of it, both [n, in].
        """
        H = _gram(self.layer, module).to(device)
        error = weight - quantized
        errors = row_energies(error, H)
        try:
            inputs = input_errors(self.layer, partners(self.layer)[module], None)
        except NumericalError as trouble:
            raise _failed(trouble, module) from trouble
        if inputs is not None:
            passed_on = quantized.float() @ inputs.errors.T
            both = passed_on + 2 * (error @ inputs.rows.T)
            errors = (errors + inputs.weight * (both * passed_on).sum(dim=1)).clamp_min(0)
        energies = row_energies(weight, H)
        if self.layer.changed:
            own = self.rows(self.before, module).to(device).float()
            original = row_energies(own, _gram(self.before, module).to(device))
            errors = torch.where(energies > 0, errors * (original / energies), errors)
            energies = original
        return errors, energies


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
