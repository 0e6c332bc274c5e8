"""Logits of two models from their final hidden states, a few tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from stages.eval.evaluated_model import Candidate
from stages.eval.hidden_run import read_batch
from stages.eval.metrics import Sums, compare
from stages.eval.samples import Samples
from stages.fake_quant.activations import simulated_inputs
from stages.model.blueprint import Blueprint
from stages.model.layer_tensors import outside_tensors
from stages.model.replay import logits, tail_names
from stages.model.skeleton import Skeleton, skeleton

LOGITS = 2**23
"""Logits of one model held at once: 32 MiB in float32."""


@dataclass(frozen=True, slots=True)
class _Head:
    """Final norm and lm_head of a model: tensors by module-tree name, in float32."""

    tensors: Mapping[str, Tensor]
    candidate: Candidate

    def logits(self, bones: Skeleton, hidden: Tensor) -> Tensor:
        """Logits [n, vocab] for final hidden states [n, hidden]."""
        with (
            bones.materialized(self.tensors),
            simulated_inputs(bones.model, self.candidate.rules),
        ):
            return logits(bones, hidden.unsqueeze(0).float())[0]


def compare_models(
    blueprint: Blueprint,
    candidates: tuple[Candidate, Candidate],
    states: tuple[Path, Path],
    samples: Samples,
    device: str,
    progress: Callable[[float, str], None],
) -> Sums:
    """Sums over all next-token predictions within the samples, without padding.

    `candidates` and `states` (folders of `hidden` results) are those of original and compressed
    model. Heads and logits are float32. Raises StageFailed if there is nothing to predict or a
    sum is not finite.
    """
    bones = skeleton(replace(blueprint, dtype="float32"), device=device)
    original, compressed = _heads(bones, candidates)
    chunk = max(1, LOGITS // blueprint.vocab_size)
    total = Sums()
    files = [sorted(folder.glob("*.safetensors")) for folder in states]
    for i, (rows, first, second) in enumerate(zip(samples.batches, *files, strict=True)):
        progress(i / len(samples.batches), f"batch {i + 1} of {len(samples.batches)}")
        keep, targets = predictions(samples.ids[rows], samples.lengths[rows])
        if not len(targets):
            continue
        before, after = (read_batch(file)[:, :-1][keep] for file in (first, second))
        for start in range(0, len(targets), chunk):
            part = slice(start, start + chunk)
            total += compare(
                original.logits(bones, before[part]),
                compressed.logits(bones, after[part]),
                targets[part].to(bones.device),
            )
    if not total.tokens:
        raise StageFailed(
            "the samples of the evaluation have no second token, so nothing is predicted",
            remedy="use a larger eval.dataset.sequence_length, or longer texts",
        )
    if not torch.tensor([total.nll_original, total.nll_compressed, total.kl]).isfinite().all():
        raise StageFailed("the logits of the evaluation are not finite")
    return total


def predictions(ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Mask of the positions whose next token is in the same sample, and these next tokens.

    ids: int64 [b, T], lengths: int64 [b]; returns bool [b, T-1] and int64 [number of True].
    """
    positions = torch.arange(1, ids.shape[1])
    keep = positions < lengths[:, None]
    return keep, ids[:, 1:][keep]


def _heads(bones: Skeleton, candidates: tuple[Candidate, Candidate]) -> tuple[_Head, _Head]:
    """Heads of both models; a tensor that is the same in both is held once."""
    names = tail_names(bones, head=True)
    first, second = (
        outside_tensors(candidate.blueprint, names, candidate.source) for candidate in candidates
    )
    shared = {name: _wide(tensor) for name, tensor in first.items()}
    others = {
        name: shared[name] if torch.equal(tensor, first[name]) else _wide(tensor)
        for name, tensor in second.items()
    }
    heads = {linear.name for linear in bones.blueprint.outside_linears}
    before, after = (
        replace(c, rules={name: rule for name, rule in c.rules.items() if name in heads})
        for c in candidates
    )
    return _Head(shared, before), _Head(others, after)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
