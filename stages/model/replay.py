"""Replay one decoder layer, or what follows the last one, inside the model's own forward.

Layers before the wanted one are stand-ins that pass on activations from disk; the layers after it
are never reached. So the model's own code makes masks, rotary tables and whatever else is between
the layers. How a layer returns its value, and what it writes for later layers, is recorded when it
runs (:mod:`stages.model.boundary`). No attention mask is passed: rows are padded on the right,
where causal layers keep the padding from reaching a real token.

Nothing is recorded for a backward pass unless `gradients` is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from stages.model.artifact_names import HIDDEN
from stages.model.boundary import EMBEDDING, Boundary
from stages.model.forward.derived_tensors import Derived
from stages.model.forward.off_meta import OffMeta
from stages.model.forward.replaced_forward import Forward, Reached, replaced_forward
from stages.model.meta_model import NO_MODEL
from stages.model.skeleton import Skeleton

Entry = tuple[str, str | int]
"""A container that layers write into (number or name of the argument), and a key in it."""
UNREAD = "unread"
"""Key of a skeleton's memo: names of tensors of a boundary that nothing reads later."""


def replay(
    skeleton: Skeleton,
    index: int,
    input_ids: Tensor,
    before: Boundary | None,
    *,
    gradients: bool = False,
) -> Boundary:
    """What decoder layer `index`, which must be materialized, hands on.

    input_ids: int64 [b, T]; before: what layer `index` - 1 hands on, None for layer 0, which needs
    the embedding materialized. The result is on the skeleton's device. Raises StageFailed if the
    layer hands on something that cannot be kept.
    """
    layer = skeleton.layers[index]
    forward = layer.forward
    embedded: list[Tensor] = []
    carried = set() if before is None else {(place, key) for place, key, _ in before.entries()}
    around = ExitStack()

    def last(*args: Any, **kwargs: Any) -> Any:
        around.close()  # the layer is all there, and is not slowed down
        output, written = recorded_call(forward, args, kwargs, carried)
        embedding = embedded[0] if before is None else before.embedding
        raise Reached(Boundary.of(output, written, embedding, skeleton.dtype))

    with ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(gradients))
        if before is not None:
            stack.enter_context(_handed_on(skeleton, index, input_ids, before))
        elif index:
            raise ValueError("only layer 0 can do without the activations before it")
        else:
            stack.enter_context(_recorded(skeleton, embedded))
        stack.enter_context(replaced_forward([(layer, last)]))
        result: Boundary = _value(skeleton, input_ids, around)
    if before is None:
        _find_readers(skeleton, input_ids, result)
    return result.without(skeleton.memo.get(UNREAD, ()))


def replay_two(
    skeleton: Skeleton, index: int, input_ids: Tensor, before: Boundary | None
) -> Boundary:
    """What decoder layer `index` + 1 hands on in one forward with layer `index`; no embeddings.

    Both must be materialized, for the rest see `replay`. Between the two is nothing but the model.
    """
    layer, following = skeleton.layers[index : index + 2]
    forward, last_forward = layer.forward, following.forward
    carried = set() if before is None else {(place, key) for place, key, _ in before.entries()}

    def first(*args: Any, **kwargs: Any) -> Any:
        output, written = recorded_call(forward, args, kwargs, carried)
        carried.update(written)
        return output

    def last(*args: Any, **kwargs: Any) -> Any:
        output, written = recorded_call(last_forward, args, kwargs, carried)
        raise Reached(Boundary.of(output, written, None, skeleton.dtype))

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if before is not None:
            stack.enter_context(_handed_on(skeleton, index, input_ids, before))
        stack.enter_context(replaced_forward([(layer, first), (following, last)]))
        result: Boundary = _value(skeleton, input_ids)
        return result


def final_hidden(
    skeleton: Skeleton, input_ids: Tensor, before: Boundary, *, gradients: bool = False
) -> Tensor:
    """The input [b, T, hidden] of the lm_head, from what the last decoder layer hands on.

    What is between them (the final norm: `ending.tail_names`) must be materialized.
    """

    def reached(value: Tensor) -> Tensor:
        raise Reached(value)

    count = len(skeleton.layers)
    with (
        torch.set_grad_enabled(gradients),
        _handed_on(skeleton, count, input_ids, before),
        replaced_forward([(skeleton.head, reached)]),
    ):
        result: Tensor = _value(skeleton, input_ids)
        return result


def recorded_call(
    forward: Forward, args: tuple[Any, ...], kwargs: dict[str, Any], carried: set[Entry]
) -> tuple[Any, dict[Entry, Any]]:
    """What a layer returns, and what it and earlier ones (`carried`) wrote into its arguments."""
    containers = _containers(args, kwargs)
    there = {place: dict(_items(container)) for place, container in containers.items()}
    output = forward(*args, **kwargs)
    written = {
        (place, key): value
        for place, container in containers.items()
        for key, value in _items(container)
        if (place, key) in carried or there[place].get(key, forward) is not value
    }
    return output, written


def stem_names(skeleton: Skeleton, index: int) -> tuple[str, ...]:
    """Parameters outside the layers that `replay` of layer `index` needs.

    They are those of the text model without the embedding, which only layer 0 needs: what reads its
    output later finds that in the boundary. A model that reads the weight itself needs it always.
    """
    blueprint = skeleton.blueprint
    prefix = f"{blueprint.decoder}." if blueprint.decoder else ""
    embedding = f"{blueprint.embedding}."
    return tuple(
        name
        for name in blueprint.outside
        if name.startswith(prefix)
        and not name.startswith(f"{blueprint.head}.")
        and (index == 0 or blueprint.embedding_bare or not name.startswith(embedding))
    )


def _value(skeleton: Skeleton, input_ids: Tensor, around: ExitStack | None = None) -> Any:
    """What the forward is left with; it runs inside `around`, which may be closed on the way."""
    with around or ExitStack() as stack:
        stack.enter_context(OffMeta(skeleton.device))
        try:
            skeleton.model(input_ids=input_ids.to(skeleton.device), use_cache=False)
        except Reached as reached:
            return reached.value
    raise RuntimeError("the forward of the model ended before the place that was asked for")


def _find_readers(skeleton: Skeleton, input_ids: Tensor, first: Boundary) -> None:
    """Find out once which of what the first layer hands on, or the embeddings, nobody reads.

    A forward that cannot be followed counts as one that reads all, which is never wrong.
    """
    if UNREAD not in skeleton.memo:
        try:
            read = _read_later(skeleton, input_ids, first)
        except NO_MODEL:
            read = set(first.tensors)
        returned = {EMBEDDING, *first.returned_names()}
        skeleton.memo[UNREAD] = tuple(sorted(returned - read - {HIDDEN}))


def _read_later(skeleton: Skeleton, input_ids: Tensor, first: Boundary) -> set[str]:
    """Names of tensors that what follows the first layer reads.

    All layers are stand-ins, so that only what the model does around them counts.
    """
    followed = {name: Derived() for name in (EMBEDDING, *first.returned_names())}
    read: set[str] = set()
    forward = skeleton.embedding.forward

    def embedded(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        followed[EMBEDDING].add(result)
        return result

    def returned() -> Any:
        value = first.mapped(torch.clone)
        for name, derived in followed.items():
            if name in value.tensors:
                derived.add(value.tensors[name])
        return value.value()

    def arrived(value: object) -> None:
        read.update(name for name, derived in followed.items() if derived.reaches(value))

    def stand_in(*args: Any, **kwargs: Any) -> Any:
        arrived((args, kwargs))
        return returned()

    def ended(final: Tensor) -> Tensor:
        arrived(final)
        raise Reached(read)

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        ends = [(skeleton.embedding, embedded), (skeleton.head, ended)]
        stack.enter_context(replaced_forward(ends))
        stack.enter_context(replaced_forward([(skeleton.layers[0], lambda *a, **k: returned())]))
        stack.enter_context(replaced_forward((layer, stand_in) for layer in skeleton.layers[1:]))
        for derived in followed.values():
            stack.enter_context(derived)
        result: set[str] = _value(skeleton, input_ids)
        return result


@contextmanager
def _recorded(skeleton: Skeleton, embedded: list[Tensor]) -> Iterator[None]:
    """Context in which the output of the token embedding is appended to `embedded`."""
    forward = skeleton.embedding.forward

    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        embedded.append(result)
        return result

    with replaced_forward([(skeleton.embedding, recorded)]):
        yield


@contextmanager
def _handed_on(
    skeleton: Skeleton, count: int, input_ids: Tensor, before: Boundary
) -> Iterator[None]:
    """Context in which the first `count` layers are stand-ins, the last of which gives `before`."""
    before = before.on(skeleton.device, skeleton.dtype)
    empty = before.mapped(lambda tensor: tensor.new_zeros(()).expand(tensor.shape))
    embedding, zeros = before.embedding, embedded_zeros(skeleton, before.hidden)

    def embedded(ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        wanted = embedding is not None and ids.shape == input_ids.shape
        return embedding.clone() if wanted and embedding is not None else zeros(ids)

    def last(*args: Any, **kwargs: Any) -> Any:
        containers = _containers(args, kwargs)
        for place, key, value in before.entries():
            _write(containers[place], key, value)
        return before.value()

    earlier = [
        (skeleton.layers[i], lambda *args, **kwargs: empty.value()) for i in range(count - 1)
    ]
    here = (skeleton.layers[count - 1], last)
    with replaced_forward([(skeleton.embedding, embedded), *earlier, here]):
        yield


def embedded_zeros(skeleton: Skeleton, like: Tensor) -> Callable[..., Tensor]:
    """A forward of the token embedding that gives zeros of its dtype, on the device of `like`.

    What a model makes of the embeddings for all layers (rotary tables) has their dtype, which the
    hidden state need not have: ZAYA's is float32 whatever the model's is.
    """
    weight = getattr(skeleton.embedding, "weight", None)
    width, dtype = like.shape[-1], like.dtype
    if weight is not None:
        width = weight.shape[-1]
        dtype = skeleton.dtype_of(f"{skeleton.blueprint.embedding}.weight", weight)
    return lambda ids, *args, **kwargs: like.new_zeros((*ids.shape, width), dtype=dtype)


def _containers(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, MutableMapping[Any, Any] | list[Any]]:
    """The arguments of a layer into which it may write for later layers, by number or name."""
    given = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    return {name: v for name, v in given.items() if isinstance(v, MutableMapping | list)}


def _items(container: MutableMapping[Any, Any] | list[Any]) -> list[tuple[Any, Any]]:
    return list(enumerate(container) if isinstance(container, list) else container.items())


def _write(container: MutableMapping[Any, Any] | list[Any], key: Any, value: object) -> None:
    if isinstance(container, list) and key == len(container):
        container.append(value)
    else:
        container[key] = value
