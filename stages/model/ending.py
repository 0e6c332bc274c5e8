"""The end of a model, behind its last decoder layer: the parameters it needs, and its logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stages.model.forward.off_meta import OffMeta
from stages.model.forward.replaced_forward import Decoded, Forward, Reached, replaced_forward
from stages.model.meta_model import NO_MODEL
from stages.model.replay import embedded_zeros, stem_names
from stages.model.skeleton import Skeleton

BEFORE_HEAD = "before_head"
"""Key of a skeleton's memo: modules outside the decoder that run between it and the lm_head."""


def logits(skeleton: Skeleton, final: Tensor, *, gradients: bool = False) -> Tensor:
    """The logits [b, T, vocab] for an input [b, T, hidden] of the lm_head.

    Scaling and soft-capping are the model's own. The lm_head must be materialized, and what runs
    before it outside the decoder (`tail_names`), whose result does not count: `final` lies behind
    it. `final` may cover any part of the tokens.
    """
    final = final.to(skeleton.device)
    head = skeleton.head.forward
    ids = torch.zeros(final.shape[:2], dtype=torch.int64, device=skeleton.device)
    decoded = Decoded(last_hidden_state=final)  # type: ignore[arg-type]
    stand_ins = [(module, lambda *args, **kwargs: decoded) for module in skeleton.trunks]
    ends = [
        (skeleton.embedding, embedded_zeros(skeleton, final)),
        (skeleton.head, lambda _: head(final)),
    ]
    with (
        torch.set_grad_enabled(gradients),
        OffMeta(skeleton.device),
        replaced_forward([*ends, *stand_ins]),
    ):
        result: Tensor = skeleton.model(input_ids=ids, use_cache=False).logits
        return result


def tail_names(skeleton: Skeleton, *, head: bool) -> tuple[str, ...]:
    """Parameters outside the layers that `final_hidden`, or `logits` (`head`), needs."""
    wanted = [f"{module}." for module in _before_head(skeleton)]
    if head:
        wanted.append(f"{skeleton.blueprint.head}.")
    stem = stem_names(skeleton, 1)
    tail = (name for name in skeleton.blueprint.outside if name.startswith(tuple(wanted)))
    return tuple(dict.fromkeys((*stem, *tail)))


def _before_head(skeleton: Skeleton) -> tuple[str, ...]:
    """Modules outside the decoder that the model calls between it and the lm_head.

    ModernBERT's decoder has a dense layer and a norm there. They are looked for beside the lm_head,
    where towers may stand too: the model is asked on the meta device. One that cannot be followed
    counts as one that calls all of them, which is never wrong.
    """
    if BEFORE_HEAD not in skeleton.memo:
        parent = skeleton.blueprint.head.rpartition(".")[0]
        holder = skeleton.model.get_submodule(parent)
        beside = {f"{parent}.{name}".removeprefix("."): m for name, m in holder.named_children()}
        within = f"{skeleton.blueprint.layers[0].name}."
        others = {
            name: module
            for name, module in beside.items()
            if name != skeleton.blueprint.head and not within.startswith(f"{name}.")
            if any(True for _ in module.parameters())
        }
        skeleton.memo[BEFORE_HEAD] = _called_before_head(skeleton, others) if others else ()
    names: tuple[str, ...] = skeleton.memo[BEFORE_HEAD]
    return names


def _called_before_head(skeleton: Skeleton, beside: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """Which modules of `beside` a forward calls when the decoder has run, before the lm_head."""
    called: list[str] = []

    def calls(name: str, forward: Forward) -> Forward:
        def recorded(*args: Any, **kwargs: Any) -> Any:
            called.append(name)
            return forward(*args, **kwargs)

        return recorded

    def reached(value: Tensor) -> Tensor:
        raise Reached(value)

    width = next(skeleton.head.parameters()).shape[-1]
    hidden = torch.empty(1, 1, width, dtype=skeleton.dtype, device="meta")
    decoded = Decoded(last_hidden_state=hidden)  # type: ignore[arg-type]
    ends = [(skeleton.embedding, lambda *args, **kwargs: hidden), (skeleton.head, reached)]
    trunks = [(module, lambda *args, **kwargs: decoded) for module in skeleton.trunks]
    recorders = [(module, calls(name, module.forward)) for name, module in beside.items()]
    ids = torch.zeros(1, 1, dtype=torch.int64, device="meta")
    try:
        with torch.no_grad(), replaced_forward([*ends, *trunks, *recorders]):
            skeleton.model(input_ids=ids, use_cache=False)
    except Reached:
        return tuple(dict.fromkeys(called))
    except NO_MODEL:
        pass
    return tuple(beside)
