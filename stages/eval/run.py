"""Run `eval`: compare the logits of two models, from final hidden states, some tokens at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.eval.evaluated_model import Candidate
from stages.eval.evaluated_model import compressed as compressed_model
from stages.eval.evaluated_model import original as original_model
from stages.eval.hidden_run import read_batch
from stages.eval.metrics import Sums, compare, perplexity, spread
from stages.eval.samples import Samples
from stages.eval.stage import EvalConfig
from stages.fake_quant.activations import simulated_inputs
from stages.model.artifact_names import CHECKPOINT
from stages.model.blueprint import Blueprint
from stages.model.ending import logits, tail_names
from stages.model.layer_tensors import outside_tensors
from stages.model.skeleton import Skeleton, skeleton

LOGITS = 2**23
"""Logits of one model held at once: 32 MiB in float32."""


def run(config: EvalConfig, task: Task) -> None:
    """Write eval.json: perplexity of both models, KL divergence, agreement of the first choice.

    Each has its standard error over the samples; that of the change in perplexity is of the
    difference sample by sample, in which the hardness of the texts cancels.
    """
    config.numerics.apply()
    inputs, draft = task.inputs, task.outputs["out"]
    blueprint = Blueprint.load(inputs["model"])
    folder = inputs["checkpoint"].path / CHECKPOINT
    sums = compare_models(
        blueprint,
        (original_model(inputs["source"], blueprint), compressed_model(folder, blueprint)),
        (inputs["original"].path, inputs["compressed"].path),
        Samples.load(inputs["tokens"], _batch_size(inputs)),
        config.numerics.device,
        task.progress,
    )
    result = _result(sums, inputs["tokens"].meta["dataset"])
    draft.write_json("eval.json", result)
    draft.meta["result"] = {"eval": result}


def _batch_size(inputs: Mapping[str, Artifact]) -> int:
    sizes = {int(inputs[name].meta["batch_size"]) for name in ("original", "compressed")}
    if len(sizes) > 1:
        raise StageFailed(
            "the hidden states of the two models were made with different batch sizes",
            remedy="give both nodes of kind hidden the same batch_size",
        )
    return sizes.pop()


def _result(sums: Sums, dataset: str) -> dict[str, Any]:
    before, after = sums.mean("nll_original"), sums.mean("nll_compressed")
    try:
        original, compressed, ratio = (perplexity(x) for x in (before, after, after - before))
    except OverflowError as error:
        raise StageFailed(
            "the perplexity is beyond what a number can say: mean negative log-likelihoods are "
            f"{before:.4g} (original) and {after:.4g} (compressed)",
            remedy="the model is broken: look at the layers with the largest error in result.json",
        ) from error
    both = sums.stderr("nll_compressed", less="nll_original")
    return {
        "perplexity": {
            "original": original,
            "original_stderr": spread(original, sums.stderr("nll_original")),
            "compressed": compressed,
            "compressed_stderr": spread(compressed, sums.stderr("nll_compressed")),
            "change": ratio - 1,
            "change_stderr": spread(ratio, both),
            "tokens": sums.tokens,
            "samples": len(sums.counts),
            "dataset": dataset,
        },
        "kl": sums.mean("kl"),
        "kl_stderr": sums.stderr("kl"),
        "top1_agreement": sums.mean("agreed"),
        "top1_agreement_stderr": sums.stderr("agreed"),
    }


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
    parts: list[tuple[Tensor, Tensor]] = []
    files = [sorted(folder.glob("*.safetensors")) for folder in states]
    for i, (rows, first, second) in enumerate(zip(samples.batches, *files, strict=True)):
        progress(i / len(samples.batches), f"batch {i + 1} of {len(samples.batches)}")
        marks = None if samples.marks is None else samples.marks[rows]
        keep, targets = predictions(samples.ids[rows], samples.lengths[rows], marks)
        if not len(targets):
            continue
        before, after = (read_batch(file)[:, :-1][keep] for file in (first, second))
        compared = [
            compare(
                original.logits(bones, before[start : start + chunk]),
                compressed.logits(bones, after[start : start + chunk]),
                targets[start : start + chunk].to(bones.device),
            )
            for start in range(0, len(targets), chunk)
        ]
        parts.append((torch.cat(compared), keep))
    total = Sums.of(parts)
    if not total.tokens:
        raise StageFailed(
            "the samples of the evaluation have no second token, so nothing is predicted",
            remedy="use a larger eval.dataset.sequence_length, or longer texts",
        )
    if not total.values.isfinite().all():
        raise StageFailed("the logits of the evaluation are not finite")
    return total


def predictions(ids: Tensor, lengths: Tensor, marks: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mask of the positions whose next token is in the same sample, and these next tokens.

    ids: int64 [b, T], lengths: int64 [b], marks: bool [b, T], False for tokens that do not count;
    returns bool [b, T-1] and int64 [number of True].
    """
    positions = torch.arange(1, ids.shape[1])
    keep = positions < lengths[:, None]
    if marks is not None:
        keep &= marks[:, 1:]
    return keep, ids[:, 1:][keep]


def _heads(bones: Skeleton, candidates: tuple[Candidate, Candidate]) -> tuple[_Head, _Head]:
    """Heads of both models; a tensor that is the same in both is held once."""
    names = tail_names(bones, head=True)
    first, second = (
        outside_tensors(candidate.blueprint, names, candidate.source) for candidate in candidates
    )
    shared = {name: _wide(tensor, bones.device) for name, tensor in first.items()}
    others = {
        name: shared[name] if torch.equal(tensor, first[name]) else _wide(tensor, bones.device)
        for name, tensor in second.items()
    }
    heads = {linear.name for linear in bones.blueprint.outside_linears}
    before, after = (
        replace(c, rules={name: rule for name, rule in c.rules.items() if name in heads})
        for c in candidates
    )
    return _Head(shared, before), _Head(others, after)


def _wide(tensor: Tensor, device: torch.device) -> Tensor:
    """In float32 on `device`, where it stays: logits are made some tokens at a time."""
    return tensor.to(device, torch.float32 if tensor.is_floating_point() else tensor.dtype)
