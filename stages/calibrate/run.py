"""Run `calibrate`: statistics of the inputs of a layer's Linears, and the layer's output."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.errors import StageFailed
from pipeline.registry import Registry
from pipeline.stage import Draft, Task
from stages.calibrate.calibration_stage import STATISTICS
from stages.calibrate.config import LayerConfig
from stages.calibrate.first_batch import check_first_batch
from stages.calibrate.input_hooks import Collected, Collector
from stages.calibrate.layer_replay import Place, filled, place_of, run_layer
from stages.calibrate.residual_share import Shares, blocks_of
from stages.calibrate.statistics.base import Statistic
from stages.model.artifact_names import ACTIVATIONS
from stages.weights.tensor_content import TensorContent


def run(config: LayerConfig, task: Task) -> None:
    """Write the wanted outputs of `stages.calibrate.stage` for the layer `task.member`."""
    config.numerics.apply()
    place = place_of(task, config.numerics.device)
    drafts = {name: draft for name, draft in task.outputs.items() if name != ACTIVATIONS}
    collector = collector_of(place, statistics_of(drafts)) if drafts else None
    shares = shares_of(place) if drafts else None
    with filled(place, place.source):
        check_first_batch(task, place, config.calibrate.sequences)
        with watching(place, collector, shares, experts=place.blueprint.experts):
            run_layer(task, place, config.calibrate.sequences, collector, shares)
    if collector is not None and shares is not None:
        meta, found, collected = task.inputs["tokens"].meta, shares.finish(), collector.collected()
        if not (all(map(math.isfinite, found.values())) and collected.is_finite()):
            raise StageFailed(
                f"the activations of {place.subgraph.name} are not finite for some calibration "
                f"tokens, in {place.blueprint.dtype}",
                remedy="check the model's weights, or run it in a wider dtype",
            )
        write_statistics(drafts, collected, meta, found)


def statistics_of(names: Mapping[str, Draft]) -> dict[str, Statistic]:
    """The statistics of these names, from the registry."""
    registry = Registry.load()
    return {name: registry.get(STATISTICS, name) for name in names}


def collector_of(place: Place, statistics: Mapping[str, Statistic]) -> Collector:
    """A collector for all Linears of the layer."""
    names = [linear.name for linear in place.subgraph.linears]
    return Collector(names=names, statistics=statistics, device=place.device)


def shares_of(place: Place) -> Shares:
    """What measures the blocks of the layer that hold Linears."""
    names = [linear.name for linear in place.subgraph.linears]
    return Shares(blocks=blocks_of(place.subgraph.name, names))


@contextmanager
def watching(
    place: Place, collector: Collector | None, shares: Shares | None, *, experts: str
) -> Iterator[None]:
    """The hooks of what gathers, or nothing where nothing is gathered."""
    if collector is None or shares is None:
        yield
        return
    layer = place.skeleton.layers[place.subgraph.index]
    prefix, send_all = f"{place.subgraph.name}.", experts == "all"
    with shares.watching(layer), collector.watching(layer, prefix=prefix, send_all=send_all):
        yield


def write_statistics(
    drafts: Mapping[str, Draft],
    collected: Collected,
    calibration: Mapping[str, Any],
    shares: Mapping[str, float],
) -> None:
    """Put every statistic into the draft of its name; `calibration` says what the data was.

    The shares of the layer's blocks (`stages.calibrate.residual_share`) are in the meta of each.
    """
    for name, draft in drafts.items():
        draft.put(f"{name}.safetensors", TensorContent.of(collected.values[name]))
        draft.meta.update(
            groups=collected.groups,
            tokens=collected.tokens,
            calibration=dict(calibration),
            shares=dict(shares),
        )
