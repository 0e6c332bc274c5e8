"""Reading what a compress node needs, and writing what it made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from compressed_tensors.quantization import QuantizationConfig
from safetensors.torch import save_file

from pipeline.key import canonical, digest
from pipeline.stage import Artifact, Draft, Task
from stages.compress.distribution import worst
from stages.compress.layer import Compressed, compress_layer
from stages.compress.lazy import LazyTensors
from stages.compress.modifiers.base import Modifier, Solver
from stages.compress.modifiers.rtn import Rtn
from stages.compress.state import LayerState
from stages.compress.statistics import Statistics
from stages.formats.layer import CHECKSUM, LAYER, SHARD
from stages.formats.resolve import Resolved, resolve
from stages.model.blueprint import Blueprint
from stages.weights import WeightSource, open_source
from stages.weights.placed import PlacedFile
from stages.weights.writer import write_tensors

if TYPE_CHECKING:
    from stages.compress.stage import CompressConfig


def run(config: CompressConfig, task: Task) -> None:
    """Compress the layer `task.member` and write its shard."""
    config.numerics.apply()
    model, stored = task.inputs["model"], task.inputs["source"]
    blueprint: Blueprint = task.resource(f"blueprint/{model.key}", lambda: Blueprint.load(model))
    subgraph = blueprint.layers[task.index or 0]
    resolved: Mapping[str, Resolved] = task.resource(
        f"formats/{model.key}/{digest(config.scheme)}",
        lambda: resolve(config.scheme, blueprint).checked(),
    )
    mine = {linear.name for linear in subgraph.linears}
    task.progress(0.0, "reading weights")
    source: WeightSource = task.resource(f"weights/{stored.key}", lambda: open_source(stored))
    statistics = statistics_of(task.inputs)
    layer = LayerState(
        subgraph=subgraph,
        tensors=LazyTensors(subgraph.tensors, source),
        statistics=Statistics(statistics, config.numerics.device),
        resolved={name: found for name, found in resolved.items() if name in mine},
        dtype=getattr(torch, blueprint.dtype),
        source=source,
        content=(stored.key, statistics["gram"].key) if "gram" in statistics else (),
    )
    draft = task.outputs["weights"]
    made = compress_layer(
        layer,
        config.modifiers,
        device=config.numerics.device,
        progress=task.progress,
        warn=task.warn,
        shard=draft.path / SHARD,
    )
    write(draft, made, blueprint.dtype)
    draft.meta["recipe"] = recipe_of(config, statistics)


def recipe_of(config: CompressConfig, statistics: Mapping[str, Artifact]) -> dict[str, Any]:
    """How the weights came about: modifiers in order, and what calibration measured."""
    modifiers: Sequence[Modifier] = config.modifiers or (Rtn(),)
    if not any(isinstance(modifier, Solver) for modifier in modifiers):
        modifiers = (*modifiers, Rtn())
    calibration: dict[str, Any] = {"statistics": sorted(statistics)}
    for artifact in statistics.values():
        calibration["tokens"] = max(artifact.meta["tokens"].values(), default=0)
        calibration |= artifact.meta.get("calibration", {})
    return {
        "modifiers": [{"kind": m.kind, **canonical(m)} for m in modifiers],
        "calibration": calibration if statistics else None,
    }


def statistics_of(inputs: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Statistic -> artifact, also where only one is there and goes by the input's own name."""
    found = {
        name.removeprefix("statistics."): artifact
        for name, artifact in inputs.items()
        if name.startswith("statistics.")
    }
    if "statistics" in inputs:
        only = inputs["statistics"]
        [file] = only.path.glob("*.safetensors")
        found[file.stem] = only
    return found


def write(draft: Draft, made: Compressed, dtype: str) -> None:
    """Write a compressed layer as `stages.formats.layer` reads it."""
    if not isinstance(made.tensors, PlacedFile):  # which is written
        write_tensors(draft.path / SHARD, made.tensors)
    save_file(dict(sorted(made.checksums.items())), draft.path / CHECKSUM)
    draft.write_json(
        LAYER,
        {
            "dtype": dtype,
            "modules": made.modules,
            "changed": sorted(made.changed),
            "quantization_config": _config(made),
        },
    )
    draft.meta["result"] = {
        "layers": made.rows,
        "fallbacks": made.fallbacks,
        "distributions": worst(made.rows, made.distributions),
    }


def _config(made: Compressed) -> dict[str, Any]:
    """A quantization_config for this shard alone, its targets being the modules by name."""
    groups: dict[str, Any] = {}
    for prefix, scheme in made.schemes.items():
        key = scheme.model_dump_json(exclude={"targets"})
        group = groups.setdefault(key, scheme.model_copy(update={"targets": []}))
        group.targets.append(prefix)
    config = QuantizationConfig(
        config_groups={f"group_{i}": group for i, group in enumerate(groups.values())},
        quantization_status="compressed",
        format="mixed-precision",
        ignore=[],
    )
    dumped: dict[str, Any] = config.model_dump(mode="json")
    return dumped
