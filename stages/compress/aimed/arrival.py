"""The place where the output of a Linear arrives: found by running the layer, not by names.

The output of some Linears (o_proj, down_proj) is added to the residual stream, perhaps times a
number. What the layer computes next is right if the stream is, so the stream after the addition is
what such a Linear is aimed at: it makes up for what was lost before it. A random tensor is added to
the Linear's output; the first argument of a later module, or else the layer's own output, that
changes by a multiple of exactly that, and is more than the Linear's output, is where it arrives.
The output of others (q_proj, up_proj, and o_proj where a norm stands behind it) is its own place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stages.compress.aimed.chains import Chains, Enough, Place
from stages.model.boundary import Boundary, joined

EXACT = 4.0
"""Roundings of a value, of its dtype, up to which two changes count as equal."""
LEAST = 1e-3
"""The smallest multiple of a Linear's output that counts as an addition of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """Where a Linear's output arrives: `factor` times it is a part of the value at `place`."""

    place: Place
    factor: float


@dataclass(kw_only=True, slots=True)
class Layout:
    """Linears of a layer in the order in which they run, and how their outputs are used.

    shared: Linear -> the first that sees the same input; calls: how often one is called in a
    forward; arrivals: of those whose output is added to something.
    """

    shared: dict[str, str] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    arrivals: dict[str, Arrival] = field(default_factory=dict)


@dataclass(kw_only=True, slots=True)
class _Reference:
    """What is compared: values at every place as they are, and outputs of Linears."""

    values: dict[Place, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)


def layout_of(chains: Chains, names: tuple[str, ...], prefix: str) -> Layout:
    """The layout of the Linears `names` in the layer `prefix`, from one sequence.

    Those that are not called have no part in it.
    """
    batch = chains.given.rows[0]
    ids, before = batch.ids[:1], chains.before(batch, original=True)
    if before is not None:
        before = joined([before.row(0, batch.ids)], ids)
    found, reference = Layout(), _Reference()
    with chains.side(original=True):
        with (
            _followed(chains.model, names, found, reference),
            _places(chains.model, prefix, reference.values.__setitem__),
        ):
            hidden = chains.run(ids, before)
            reference.values[Place(module="")] = hidden
        state = hidden if before is None else before.hidden
        for name, calls in found.calls.items():
            if calls == 1:
                arrival = _arrival(chains, prefix, name, reference, state, ids, before)
                if arrival is not None:
                    found.arrivals[name] = arrival
    return found


@contextmanager
def _followed(
    model: nn.Module, names: tuple[str, ...], found: Layout, reference: _Reference
) -> Iterator[None]:
    """Context in which Linears are noted as they are called, their inputs told apart."""
    inputs: dict[tuple[int, ...], tuple[Tensor, str]] = {}

    def called(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            del module
            x: Tensor = args[0]  # kept until the end: the next tensor could reuse freed memory
            identity = (x.data_ptr(), x.numel(), x.shape[-1], x._version)
            first = inputs.setdefault(identity, (x, name))[1]
            found.calls[name] = found.calls.get(name, 0) + 1
            if found.shared.setdefault(name, first) != first:
                found.shared[name] = name
            reference.outputs[name] = output.detach().clone()

        return hook

    with ExitStack() as stack:
        for name in names:
            handle = model.get_submodule(name).register_forward_hook(called(name))
            stack.callback(handle.remove)
        yield


@contextmanager
def _places(model: nn.Module, prefix: str, see: Callable[[Place, Tensor], None]) -> Iterator[None]:
    """Context in which tensors that modules of the layer are given are shown to `see`."""
    count: dict[str, int] = {}

    def called(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            call = count[name] = count.get(name, -1) + 1
            given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
            for argument, value in given:
                if isinstance(value, Tensor) and value.is_floating_point():
                    place = Place(module=name, argument=argument, call=call)
                    see(place, value.detach().clone())

        return hook

    with ExitStack() as stack:
        for name, module in model.get_submodule(prefix).named_modules(prefix=prefix):
            if name != prefix:
                handle = module.register_forward_pre_hook(called(name), with_kwargs=True)
                stack.callback(handle.remove)
        yield


def _arrival(
    chains: Chains,
    prefix: str,
    name: str,
    reference: _Reference,
    state: Tensor,
    ids: Tensor,
    before: Boundary | None,
) -> Arrival | None:
    own = reference.outputs[name]
    if own.shape[-1] != state.shape[-1] or own.numel() != state.numel():
        return None
    noise = _noise(own, state)
    module, found, called = chains.model.get_submodule(name), list[Arrival](), list[bool]()

    def added(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        del module, args
        called.append(True)
        return output + noise

    def see(place: Place, value: Tensor) -> None:
        usual = reference.values.get(place)
        if not called or usual is None or usual.shape != value.shape:
            return
        factor = multiple_added(usual, value, own, noise)
        if factor is not None:
            found.append(Arrival(place=place, factor=factor))
            raise Enough

    with ExitStack() as stack:
        stack.callback(module.register_forward_hook(added).remove)
        stack.enter_context(_places(chains.model, prefix, see))
        hidden = chains.run(ids, before)
    if not found and hidden.numel():
        place = Place(module="")
        factor = multiple_added(reference.values[place], hidden, own, noise)
        if factor is not None:
            return Arrival(place=place, factor=factor)
    return found[0] if found else None


def multiple_added(usual: Tensor, value: Tensor, own: Tensor, noise: Tensor) -> float | None:
    """The c with `value` = `usual` + c * `noise`, up to rounding; None where there is none.

    own: the output to which the noise was added. None too where `usual` is c * own and no more:
    then nothing was added yet.
    """
    if usual.shape[-1] != noise.shape[-1] or usual.numel() != noise.numel():
        return None
    before, after = usual.double().flatten(), value.double().flatten()
    added, change = noise.double().flatten(), after - before
    factor = float(change @ added / (added @ added))
    if abs(factor) < LEAST:
        return None
    rounding = EXACT * max(torch.finfo(t.dtype).eps for t in (usual, noise))
    size = before.norm() + after.norm() + abs(factor) * added.norm()
    if float((change - factor * added).norm()) > rounding * float(size):
        return None
    rest = before - factor * own.double().flatten()
    return factor if float(rest.norm()) > LEAST * float(before.norm()) else None


def _noise(own: Tensor, state: Tensor) -> Tensor:
    """A random tensor of the shape of `own`, as large as what it may be added to."""
    draw = torch.Generator().manual_seed(0)
    size = max(float(t.float().square().mean().sqrt()) for t in (own, state))
    noise = torch.randn(own.shape, generator=draw) * max(size, 1e-3)
    return noise.to(own.device, own.dtype)
