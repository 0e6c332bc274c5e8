"""Replay one decoder layer over all calibration tokens, one batch of activations in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pipeline.stage import Task
from stages.calibrate.residual_share import Shares
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.boundary_activations import batches, read_activations, write_activations
from stages.model.layer_tensors import Reader, layer_tensors, outside_tensors
from stages.model.replay import replay, stem_names
from stages.model.skeleton import Skeleton, kept_skeleton
from stages.quantized.open import open_model
from stages.weights import WeightSource

MEASURED = 2048
"""So many tokens settle the shares of a layer's blocks (`residual_share`), which are means."""


class Gathering(Protocol):
    """What gathers something of every forward, such as an `input_hooks.Collector`."""

    def forward(self, valid: Tensor | None, *, stops: bool = False) -> AbstractContextManager[None]:
        """Context of one forward; valid: bool [b, T], False for tokens that do not count."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The decoder layer of a task, with the skeleton and weight source to run it."""

    blueprint: Blueprint
    subgraph: Subgraph
    skeleton: Skeleton
    source: WeightSource
    device: str


def place_of(task: Task, device: str) -> Place:
    """The layer of `task`; skeleton and weight source are kept for the worker's next task."""
    model, source = task.inputs["model"], task.inputs["source"]
    bones = kept_skeleton(task, device)
    opened = task.resource(
        f"weights/{source.key}/{model.key}", lambda: open_model(source, bones.blueprint)
    )
    return Place(
        blueprint=bones.blueprint,
        subgraph=bones.blueprint.layer(task.member or ""),
        skeleton=bones,
        source=opened,
        device=device,
    )


@contextmanager
def filled(place: Place, weights: Reader) -> Iterator[None]:
    """Context in which the layer is materialized for `replay`, its tensors from `weights`."""
    tensors = layer_tensors(place.subgraph, weights, original=place.source, device=place.device)
    stem = stem_names(place.skeleton, place.subgraph.index)
    tensors |= outside_tensors(place.blueprint, stem, place.source, device=place.device)
    with place.skeleton.materialized(tensors):
        yield


def run_layer(
    task: Task,
    place: Place,
    batch_size: int,
    collector: Gathering | None,
    shares: Shares | None = None,
) -> None:
    """Replay the layer for every batch; write its output if wanted, feed collectors if given.

    The layer must be `filled`. One batch of activations is in memory at a time. Where nobody wants
    the output, forwards end with the last Linear's input once `shares` has `MEASURED` tokens.
    """
    draft = task.outputs.get(ACTIVATIONS)
    before = task.inputs.get(ACTIVATIONS)
    count = 0
    for batch in batches(task.inputs["tokens"], batch_size):
        output, given = None, None
        valid = _on(batch.counted, place) if collector is not None else None
        stops = draft is None and (shares is None or shares.tokens >= MEASURED)
        gathering = nullcontext() if collector is None else collector.forward(valid, stops=stops)
        with gathering:
            if before is not None:
                given = read_activations(before, batch, device=place.device)
            output = replay(place.skeleton, place.subgraph.index, batch.ids, given)
        if shares is not None:
            shares.take(None if output is None else output.hidden, valid)
        if draft is not None and output is not None:
            write_activations(draft, batch.index, output)
        count = batch.index + 1
        task.progress(count / batch.count, f"batch {count} of {batch.count}")
    if draft is not None:
        draft.meta.update(batches=count, batch_size=batch_size)


def _on(valid: Tensor | None, place: Place) -> Tensor | None:
    return None if valid is None else valid.to(place.device)
