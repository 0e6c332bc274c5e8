"""Proof that replaying a model layer by layer gives what its own forward gives.

A shrunken instance of the model (:mod:`stages.model.shrunken`) runs as a whole, and is replayed
from boundary to boundary as the stages do it, with nothing materialized that they would not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import StageFailed, UserError
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.blueprint_from_class import blueprint_of
from stages.model.boundary import EMBEDDING, Boundary
from stages.model.ending import logits, tail_names
from stages.model.meta_model import NO_MODEL
from stages.model.replay import Entry, final_hidden, recorded_call, replay, stem_names
from stages.model.shrunken import Shrunken, randomize, shrunken
from stages.model.skeleton import Skeleton, skeleton

SEED = 0
WIDE = "float32"


@dataclass(kw_only=True, slots=True)
class Whole:
    """What one forward of the whole model gives: by layer, at the lm_head, and its logits."""

    layers: list[Boundary] = field(default_factory=list)
    final: Tensor
    logits: Tensor


def prove(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is proven of the model of a parsed config.json, as JSON data.

    In the dtype of the config; in float32 where the class itself cannot run in that one, as
    DeepSeek-V4's, which multiplies float32 streams by bfloat16 weights. Raises StageFailed, naming
    the first layer, where the replay differs by a bit.
    """
    small = shrunken(config, seed=SEED)
    blueprint = blueprint_of(small.config)
    try:
        return _proven(blueprint, small)
    except RuntimeError as error:
        if "dtype" not in str(error) or blueprint.dtype == WIDE:
            raise
        return _proven(replace(blueprint, dtype=WIDE), small)


def _proven(blueprint: Blueprint, small: Shrunken) -> dict[str, Any]:
    whole = skeleton(blueprint)
    randomize(whole.model, SEED)
    tensors: dict[str, Tensor] = dict(whole.model.state_dict())
    with whole.materialized(tensors):  # in the dtypes that transformers loads them in
        expected = run_whole(whole, small.input_ids)
    bones = skeleton(blueprint)
    boundary: Boundary | None = None
    for layer, wanted in zip(blueprint.layers, expected.layers, strict=True):
        boundary = _replayed(bones, layer, tensors, small.input_ids, boundary)
        check(layer, boundary, wanted)
    if boundary is None:
        raise StageFailed("the model has no decoder layer")
    _check_ending(bones, tensors, small.input_ids, boundary, expected)
    return _told(blueprint, small, boundary)


def run_whole(bones: Skeleton, input_ids: Tensor) -> Whole:
    """One forward of a model that is wholly materialized; every layer is recorded."""
    found: list[Boundary] = []
    carried: set[Entry] = set()
    final: list[Tensor] = []
    forwards = [layer.forward for layer in bones.layers]

    def watched(index: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            output, written = recorded_call(forwards[index], args, kwargs, carried)
            carried.update(written)
            # a copy: later layers may write into what they are given
            found.append(Boundary.of(output, written, None, bones.dtype).mapped(torch.clone))
            return output

        return forward

    def ended(module: Any, args: tuple[Tensor, ...]) -> None:
        final.append(args[0].clone())

    hook = bones.head.register_forward_pre_hook(ended)
    try:
        for index, layer in enumerate(bones.layers):
            layer.__dict__["forward"] = watched(index)
        with torch.no_grad():
            scores = bones.model(input_ids=input_ids, use_cache=False).logits
    finally:
        hook.remove()
        for layer in bones.layers:
            layer.__dict__.pop("forward", None)
    if len(found) != len(bones.layers) or not final:
        raise StageFailed(
            f"a forward of {bones.blueprint.architecture} runs {len(found)} decoder layers, the "
            f"model has {len(bones.layers)}",
            remedy="models that run a layer more than once, or not at all, are not supported",
        )
    return Whole(layers=found, final=final[0], logits=scores)


def check(layer: Subgraph, found: Boundary, wanted: Boundary) -> None:
    """Raise StageFailed unless a replayed layer hands on the bits of `wanted`."""
    told = f"{layer.name} ({layer.kind})"
    if not bool(wanted.hidden.isfinite().all()):
        raise unproven(f"{told} hands on numbers that are not finite, with random weights")
    for name, mine in found.tensors.items():
        tensor = wanted.tensors.get(name)
        if name != EMBEDDING and (tensor is None or not torch.equal(mine, tensor)):
            raise unproven(f"{told} hands on other values{_difference(mine, tensor)}")


def unproven(what: str) -> StageFailed:
    """The error of a model whose replay is not what its forward does."""
    return StageFailed(
        f"the model cannot be replayed layer by layer as its own forward runs: in a small random "
        f"model of its class, {what}",
        remedy="graph=data_free compresses it without running it; report the architecture",
    )


def _replayed(
    bones: Skeleton,
    layer: Subgraph,
    tensors: Mapping[str, Tensor],
    input_ids: Tensor,
    before: Boundary | None,
) -> Boundary:
    names = (*layer.tensors, *stem_names(bones, layer.index))
    try:
        with bones.materialized({name: tensors[name] for name in names}):
            return replay(bones, layer.index, input_ids, before)
    except UserError:
        raise
    except NO_MODEL as error:
        first = (str(error).splitlines() or [""])[0]
        raise unproven(
            f"{layer.name} ({layer.kind}) fails: {type(error).__name__}: {first}"
        ) from error


def _check_ending(
    bones: Skeleton,
    tensors: Mapping[str, Tensor],
    input_ids: Tensor,
    before: Boundary,
    expected: Whole,
) -> None:
    names = tail_names(bones, head=True)
    try:
        with bones.materialized({name: tensors[name] for name in names}):
            final = final_hidden(bones, input_ids, before)
            scores = logits(bones, final)
    except NO_MODEL as error:
        first = (str(error).splitlines() or [""])[0]
        raise unproven(
            f"what follows the last decoder layer fails: {type(error).__name__}: {first}"
        ) from error
    for what, mine, wanted in (
        ("what follows the last decoder layer", final, expected.final),
        (f"the lm_head ({bones.blueprint.head})", scores, expected.logits),
    ):
        if not torch.equal(mine, wanted):
            raise unproven(f"{what} gives other values{_difference(mine, wanted)}")


def _difference(found: Tensor, wanted: Tensor | None) -> str:
    if wanted is None or found.shape != wanted.shape:
        return f" (a tensor {list(found.shape)} has another shape)"
    error = float((found.double() - wanted.double()).abs().max())
    return f" (largest difference {error:.3g}, largest value {float(wanted.abs().max()):.3g})"


def _told(blueprint: Blueprint, small: Shrunken, last: Boundary) -> dict[str, Any]:
    shapes = {name: list(tensor.shape) for name, tensor in last.tensors.items()}
    return {
        "architecture": blueprint.architecture,
        "replay": {
            "equal": "bits",
            "layers": [layer.kind for layer in blueprint.layers],
            "layers_of_model": small.of,
            "tokens": list(small.input_ids.shape),
            "hands_on": shapes,
            "embedding_read": last.embedding is not None,
        },
        "experts": {},
        "config": small.config,
    }
