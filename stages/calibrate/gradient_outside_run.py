"""Backward pass from labels sampled from the model to the output of the last decoder layer."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.stage import Task
from stages.calibrate.gradient_outside import LOGITS, EndingConfig
from stages.calibrate.gradient_run import as_leaf, explained, gradient_of
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint
from stages.model.boundary import Boundary, joined
from stages.model.boundary_activations import batches, read_activations, write_activations
from stages.model.compute_dtype import computed
from stages.model.ending import logits, tail_names
from stages.model.layer_tensors import outside_tensors
from stages.model.replay import final_hidden
from stages.model.skeleton import Skeleton, skeleton
from stages.quantized.open import open_model


def run(config: EndingConfig, task: Task) -> None:
    """Write the output of `stages.calibrate.gradient_outside`; labels are drawn row after row."""
    config.numerics.apply()
    device = config.numerics.device
    blueprint = computed(Blueprint.load(task.inputs["model"]), device)
    bones = skeleton(blueprint, device=device)
    source = open_model(task.inputs["source"], blueprint)
    tail = outside_tensors(blueprint, tail_names(bones, head=True), source, device=device)
    draw = torch.Generator().manual_seed(config.seed)
    draft, before = task.outputs["out"], task.inputs[ACTIVATIONS]
    with bones.materialized(tail):
        for batch in batches(task.inputs["tokens"], config.calibrate.sequences):
            given = read_activations(before, batch, device=device)
            rows = []
            for row, length in enumerate(batch.lengths.tolist()):
                ids = batch.ids[row : row + 1]
                counts = None if batch.marks is None else batch.marks[row]
                with explained(blueprint.head):
                    one = given.row(row, batch.ids)
                    rows.append(_row(bones, ids, one, length, draw, counts))
            write_activations(draft, batch.index, joined(rows, batch.ids))
            task.progress((batch.index + 1) / batch.count, f"batch {batch.index + 1}")


def _row(
    bones: Skeleton,
    ids: Tensor,
    before: Boundary,
    length: int,
    draw: torch.Generator,
    counts: Tensor | None,
) -> Boundary:
    """Derivatives by what the last layer hands on, for ids [1, T] padded after `length` tokens.

    counts: bool [T]; the loss is that of these tokens, each predicted at the one before. None: all.
    """
    x = before.on(bones.device, bones.dtype).mapped(as_leaf)
    final = final_hidden(bones, ids, x, gradients=True)
    above = torch.zeros_like(final)
    chunk = max(1, LOGITS // bones.blueprint.vocab_size)
    for start in range(0, length, chunk):
        part = slice(start, min(start + chunk, length))
        given = final[:, part].detach().requires_grad_()
        scores = logits(bones, given, gradients=True)
        [above[:, part]] = torch.autograd.grad(scores, given, surprise(scores, draw))
    if counts is not None:
        predicted = torch.cat((counts[1:], counts.new_zeros(1))).to(above.device)
        above[:, ~predicted] = 0
    torch.autograd.backward([final], [above])
    return x.mapped(gradient_of)


def surprise(scores: Tensor, draw: torch.Generator) -> Tensor:
    """softmax(z) - e_y for logits z [1, n, vocab]: the derivative of -log p(y), y drawn from p."""
    p = torch.softmax(scores.detach().float(), dim=-1)
    labels = torch.multinomial(p[0].cpu(), 1, generator=draw).to(p.device)
    p[0].scatter_add_(-1, labels, p.new_full((len(labels), 1), -1.0))
    return p.to(scores.dtype)
