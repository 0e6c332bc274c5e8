"""Inputs of a compress node: the layer's weights, number formats and calibration statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pipeline.key import digest
from pipeline.stage import Artifact, Task
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.layer_plan import GRAM, UNROTATED
from stages.compress.modifiers.base import Modifier, Solver
from stages.compress.modifiers.rtn import Rtn
from stages.model.blueprint import Blueprint
from stages.model.pairs.proven import PAIRS, ProvenPairs
from stages.model.rotations.rotated_source import RotatedSource
from stages.quantized.open import open_model
from stages.schemes.resolve import Resolved, resolve
from stages.weights import WeightSource

if TYPE_CHECKING:
    from stages.compress.config import CompressConfig


def layer_state(config: CompressConfig, task: Task) -> LayerState:
    """The layer `task.member`, nothing of it read yet."""
    model, stored = task.inputs["model"], task.inputs["source"]
    pairs = task.inputs.get(PAIRS)
    blueprint: Blueprint = task.resource(
        f"blueprint/{model.key}/{pairs.key if pairs else ''}", lambda: blueprint_of(model, pairs)
    )
    subgraph = blueprint.layers[task.index or 0]
    resolved: Mapping[str, Resolved] = task.resource(
        f"formats/{model.key}/{digest(config.scheme)}",
        lambda: resolve(config.scheme, blueprint).checked(),
    )
    mine = {linear.name for linear in subgraph.linears}
    source: WeightSource = task.resource(
        f"weights/{stored.key}/{model.key}", lambda: open_model(stored, blueprint)
    )
    statistics = statistics_of(task.inputs)
    return LayerState(
        subgraph=subgraph,
        tensors=LazyTensors(subgraph.tensors, source),
        statistics=Statistics(
            statistics,
            config.numerics.device,
            rotated=rotating(task.inputs, subgraph.tensors, source),
        ),
        resolved={name: found for name, found in resolved.items() if name in mine},
        dtype=getattr(torch, blueprint.dtype),
        source=source,
        content=(stored.key, model.key, statistics["gram"].key) if "gram" in statistics else (),
    )


def rotating(
    inputs: Mapping[str, Artifact], tensors: Mapping[str, str], source: WeightSource
) -> Callable[[str, Tensor], Tensor] | None:
    """How the Gram matrix of a module becomes that of the rotated model; None: it is that already.

    `tensors`: parameter -> its name in `source`.
    """
    if UNROTATED not in inputs or not isinstance(source, RotatedSource):
        return None
    return lambda module, gram: source.rotated_gram(tensors[f"{module}.weight"], gram)


def blueprint_of(model: Artifact, pairs: Artifact | None) -> Blueprint:
    """The blueprint, with the pairs that transforms use where they take part."""
    blueprint = Blueprint.load(model)
    return blueprint if pairs is None else ProvenPairs.load(pairs).attached(blueprint)


def recipe_of(
    config: CompressConfig, statistics: Mapping[str, Artifact], tokens: Artifact | None = None
) -> dict[str, Any]:
    """How the weights came about: modifiers in order, and what calibration measured.

    tokens: what the layer itself was run on, where a modifier does that.
    """
    modifiers: Sequence[Modifier] = config.modifiers or (Rtn(),)
    rounds = bool(config.local or config.scheme.formats() or not config.modifiers)
    if rounds and not any(isinstance(modifier, Solver) for modifier in modifiers):
        modifiers = (*modifiers, Rtn())
    calibration: dict[str, Any] = {"statistics": sorted(statistics)}
    if tokens is not None:
        calibration |= tokens.meta
    for artifact in statistics.values():
        calibration["tokens"] = max(artifact.meta["tokens"].values(), default=0)
        calibration |= artifact.meta.get("calibration", {})
    return {
        "modifiers": [{"kind": m.kind, **m.said()} for m in modifiers],
        "calibration": calibration if statistics or tokens is not None else None,
    }


def statistics_of(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Statistic -> artifact, also where only one is there and goes by the input's own name.

    Those of the model before it was rotated are among them.
    """
    found = {
        name.removeprefix("statistics."): artifact
        for name, artifact in inputs.items()
        if name.startswith("statistics.")
    }
    if "statistics" in inputs:
        only = inputs["statistics"]
        [file] = only.names
        found[file.removesuffix(".safetensors")] = only
    if UNROTATED in inputs:
        found |= dict.fromkeys(GRAM, inputs[UNROTATED])
    return found
