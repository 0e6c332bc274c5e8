"""Replay one decoder layer, or what follows the last one, inside the model's own forward.

Layers before the wanted one are stand-ins that pass on activations from disk; the layers after it
are never reached. So the model's own code makes masks, rotary tables and whatever else is between
the layers. No attention mask is passed: rows are padded on the right, where causal layers keep the
padding from reaching a real token.

Nothing is recorded for a backward pass unless `gradients` is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from stages.model.families import TUPLE_LAYERS
from stages.model.skeleton import Skeleton

Forward = Callable[..., Any]


class _Reached(Exception):
    """Leaves the forward with the wanted value."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def replay(
    skeleton: Skeleton,
    index: int,
    input_ids: Tensor,
    hidden: Tensor | None,
    *,
    gradients: bool = False,
) -> Tensor:
    """The output [b, T, hidden] of decoder layer `index`, which must be materialized.

    input_ids: int64 [b, T]; hidden: the output of layer `index` - 1 in the model's dtype, None
    for layer 0, which needs the embedding materialized. The result is on the skeleton's device.
    """
    layer = skeleton.layers[index]
    forward = layer.forward

    def last(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        raise _Reached(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(gradients))
        if index:
            stack.enter_context(_handed_on(skeleton, index, input_ids, hidden))
        stack.enter_context(_replaced_forward([(layer, last)]))
        return _value(skeleton, input_ids)


def final_hidden(
    skeleton: Skeleton, input_ids: Tensor, hidden: Tensor, *, gradients: bool = False
) -> Tensor:
    """The input [b, T, hidden] of the lm_head, from the output of the last decoder layer.

    What is between them (the final norm: `tail_names`) must be materialized.
    """

    def reached(value: Tensor) -> Tensor:
        raise _Reached(value)

    count = len(skeleton.layers)
    with (
        torch.set_grad_enabled(gradients),
        _handed_on(skeleton, count, input_ids, hidden),
        _replaced_forward([(skeleton.head, reached)]),
    ):
        return _value(skeleton, input_ids)


def logits(skeleton: Skeleton, final: Tensor, *, gradients: bool = False) -> Tensor:
    """The logits [b, T, vocab] for an input [b, T, hidden] of the lm_head.

    Scaling and soft-capping are the model's own. The final norm and the lm_head must be
    materialized. `final` may cover any part of the tokens.
    """
    forward = skeleton.head.forward
    final = final.to(skeleton.device)
    ids = torch.zeros(final.shape[:2], dtype=torch.int64, device=skeleton.device)
    with (
        torch.set_grad_enabled(gradients),
        _handed_on(skeleton, len(skeleton.layers), ids, torch.zeros_like(final)),
        _replaced_forward([(skeleton.head, lambda _: forward(final))]),
    ):
        result: Tensor = skeleton.model(input_ids=ids, use_cache=False).logits
        return result


def stem_names(skeleton: Skeleton, index: int) -> tuple[str, ...]:
    """Parameters outside the layers that `replay` of layer `index` needs.

    They are those of the text model without the embedding, which only layer 0 needs.
    """
    blueprint = skeleton.blueprint
    prefix = f"{blueprint.decoder}." if blueprint.decoder else ""
    embedding = f"{blueprint.embedding}."
    return tuple(
        name
        for name in blueprint.outside
        if name.startswith(prefix)
        and not name.startswith(f"{blueprint.head}.")
        and (index == 0 or not name.startswith(embedding))
    )


def tail_names(skeleton: Skeleton, *, head: bool) -> tuple[str, ...]:
    """Parameters outside the layers that `final_hidden`, or `logits` (`head`), needs."""
    prefix = f"{skeleton.blueprint.head}."
    names = stem_names(skeleton, 1)
    return (*names, *(n for n in skeleton.blueprint.outside if head and n.startswith(prefix)))


def _value(skeleton: Skeleton, input_ids: Tensor) -> Tensor:
    try:
        skeleton.model(input_ids=input_ids.to(skeleton.device), use_cache=False)
    except _Reached as reached:
        return reached.value
    raise RuntimeError("the forward of the model ended before the place that was asked for")


@contextmanager
def _handed_on(
    skeleton: Skeleton, count: int, input_ids: Tensor, hidden: Tensor | None
) -> Iterator[None]:
    """Context in which the first `count` layers are stand-ins, the last of which gives `hidden`."""
    if hidden is None:
        raise ValueError("only layer 0 can do without the activations before it")
    value = hidden.to(device=skeleton.device, dtype=skeleton.dtype)
    empty = value.new_zeros(()).expand(value.shape)

    def embedded(ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return value.new_zeros((*ids.shape, value.shape[-1]))

    def stand_in(layer: nn.Module, output: Tensor) -> tuple[nn.Module, Forward]:
        wrapped = (output,) if type(layer).__name__ in TUPLE_LAYERS else output
        return layer, lambda *args, **kwargs: wrapped

    stand_ins = [stand_in(layer, empty) for layer in skeleton.layers[: count - 1]]
    stand_ins.append(stand_in(skeleton.layers[count - 1], value))
    with _replaced_forward([(skeleton.embedding, embedded), *stand_ins]):
        yield


@contextmanager
def _replaced_forward(forwards: Iterable[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Context in which modules have another forward; their classes stay unchanged."""
    with ExitStack() as stack:
        for module, forward in forwards:
            module.__dict__["forward"] = forward
            stack.callback(module.__dict__.pop, "forward")
        yield
