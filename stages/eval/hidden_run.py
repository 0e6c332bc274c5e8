"""Run `hidden`: final hidden states of a whole model with one decoder layer in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.eval.evaluated_model import Candidate, candidate
from stages.eval.hidden import HiddenConfig
from stages.eval.samples import Samples
from stages.fake_quant.activations import simulated_inputs
from stages.fake_quant.attention_states import simulated_states
from stages.model.artifact_names import HIDDEN
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.boundary import Boundary, batch_dim
from stages.model.boundary_activations import PassedOn
from stages.model.compute_dtype import computed
from stages.model.ending import tail_names
from stages.model.layer_tensors import layer_tensors, outside_tensors
from stages.model.replay import final_hidden, replay, stem_names
from stages.model.skeleton import Skeleton, skeleton


def run(config: HiddenConfig, task: Task) -> None:
    """Write the hidden states of every batch, of the compressed model where there is a checkpoint.

    Raises StageFailed where they are not finite.
    """
    config.numerics.apply()
    draft, device = task.outputs["out"], config.numerics.device
    blueprint = Blueprint.load(task.inputs["model"])
    samples = Samples.load(task.inputs["tokens"], config.batch_size)
    states = final_states(
        skeleton(computed(blueprint, device), device=device),
        candidate(task.inputs, blueprint),
        samples,
        task.scratch / "boundaries",
        task.progress,
    )
    for i, hidden in enumerate(states):
        write_batch(draft.path / f"{i:05d}.safetensors", hidden)
    draft.meta.update(batch_size=config.batch_size, tokens=int(samples.lengths.sum()))


def write_batch(path: Path, hidden: Tensor) -> None:
    """Store the hidden states of one batch."""
    save_file({HIDDEN: hidden.contiguous().cpu()}, path)


def read_batch(path: Path) -> Tensor:
    """Read the hidden states that `write_batch` stored."""
    return load_file(path)[HIDDEN]


def final_states(
    bones: Skeleton,
    candidate: Candidate,
    samples: Samples,
    scratch: Path,
    progress: Callable[[float, str], None],
) -> Iterator[Tensor]:
    """Inputs of the lm_head batch by batch: [b, T, hidden] in the model's dtype.

    Activations between layers are in memory, or under `scratch` where they are too large for it.
    Raises StageFailed, naming the layer, if they are not finite.
    """
    layers, batches, device = bones.blueprint.layers, samples.batches, str(bones.device)
    passed = PassedOn(scratch, len(batches))
    with simulated_inputs(bones.model, candidate.rules):
        for layer in layers:
            progress(layer.index / (len(layers) + 1), layer.name)
            with (
                bones.materialized(_needed(bones, layer, candidate)),
                simulated_states(bones, [layer.index], candidate.states),
            ):
                for i, rows in enumerate(batches):
                    before = passed.take(i, device=device) if layer.index else None
                    after = replay(bones, layer.index, samples.ids[rows], before)
                    _check(after, samples.ids[rows], samples.lengths[rows], layer.name)
                    passed.put(i, after)
        tail = outside_tensors(candidate.blueprint, tail_names(bones, head=False), candidate.source)
        with bones.materialized(tail):
            for i, rows in enumerate(batches):
                before = passed.take(i, device=device)
                final = final_hidden(bones, samples.ids[rows], before)
                ends, told = Boundary.plain(final), "what follows the decoder layers"
                _check(ends, samples.ids[rows], samples.lengths[rows], told)
                yield final


def _needed(bones: Skeleton, layer: Subgraph, candidate: Candidate) -> dict[str, Tensor]:
    names, device = stem_names(bones, layer.index), str(bones.device)
    return {
        **outside_tensors(candidate.blueprint, names, candidate.source, device=device),
        **layer_tensors(layer, candidate.source, device=device),
    }


def _check(boundary: Boundary, ids: Tensor, lengths: Tensor, where: str) -> None:
    if boundary.hidden.isfinite().all():
        return
    for index, length in enumerate(lengths.tolist()):
        row = boundary.row(index, ids).hidden
        dim = batch_dim(row.shape, torch.Size((1, ids.shape[1])))
        tokens = row if dim is None else row.narrow(dim + 1, 0, length)
        if not tokens.isfinite().all():
            raise StageFailed(
                f"the output of {where} is not finite, so nothing can be measured on it",
                remedy="the weights, or the scales of a compressed checkpoint, are broken there",
            )
