"""Run `compress_outside`: compress what lies outside the decoder layers."""

from __future__ import annotations

import torch

from pipeline.stage import Task
from stages.compress.compress_outside import lookup_solver, solvers_of
from stages.compress.config import CompressConfig
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.layer.writer import Compressed
from stages.compress.layer_inputs import recipe_of, rotating, statistics_of
from stages.compress.run import compress_layer
from stages.model.blueprint import EMBEDDING, Blueprint
from stages.quantized.open import open_model
from stages.schemes.resolve import resolve


def run(config: CompressConfig, task: Task) -> None:
    """Compress the quantized modules outside the layers and write their shard."""
    config.numerics.apply()
    solvers = solvers_of(config)
    blueprint = Blueprint.load(task.inputs["model"])
    resolved = resolve(config.scheme, blueprint).checked()
    ends = [end for end in blueprint.ends() if end.name in resolved]
    found = statistics_of(task.inputs)
    dtype: torch.dtype = getattr(torch, blueprint.dtype)
    source, made = open_model(task.inputs["source"], blueprint), Compressed()
    for end in ends:  # one at a time: they are the largest matrices of the model
        part = blueprint.outside_part({end.name})
        layer = LayerState(
            subgraph=part,
            tensors=LazyTensors(part.tensors, source),
            statistics=Statistics(
                found,
                config.numerics.device,
                rotated=rotating(task.inputs, part.tensors, source),
            ),
            resolved={end.name: resolved[end.name]},
            dtype=dtype,
            source=source,
        )
        one = compress_layer(
            layer,
            (lookup_solver(solvers),) if end.kind == EMBEDDING else solvers,
            device=config.numerics.device,
            progress=task.progress,
            warn=task.warn,
        )
        made.take(one)
    # what stays dense, a bias say, is written by save with all that is outside the layers
    parts = {name: t for name, t in made.tensors.items() if not name.endswith(".bias")}
    made.tensors = {n: t for n, t in parts.items() if n.rpartition(".")[0] in made.schemes}
    draft = task.outputs["weights"]
    made.write(draft, dtype)
    draft.meta["recipe"] = recipe_of(config, found)
