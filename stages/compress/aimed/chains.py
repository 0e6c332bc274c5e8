"""A decoder layer in two models: its inputs in the original one and in the compressed one.

The layer runs with its own weights in the first, and in the second with those of its Linears that
are quantized so far, whose inputs are rounded as the scheme says. A forward ends once all that is
wanted of it was seen. Transforms have been applied to the layer in both: it computes the same as
before them, so that values inside it stand in the same basis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.compress.aimed.aim_plan import ORIGINAL
from stages.compress.layer.running import materialized_layer
from stages.compress.layer.state import LayerState
from stages.fake_quant.activations import simulated_inputs
from stages.formats.input_params import InputRule
from stages.model.artifact_names import ACTIVATIONS
from stages.model.boundary import Boundary
from stages.model.boundary_activations import Batch, batches, read_activations
from stages.model.replay import replay
from stages.model.skeleton import Skeleton, kept_skeleton
from stages.weights import WeightSource

FIRST = 4
"""Sequences of a batch in the first layer, before which there are no files of activations."""


class Enough(Exception):
    """All that is wanted of a forward has been seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    """What a layer is run on: token rows, and activations before it in both models.

    before, original: those of the compressed and of the original model; None for the first layer.
    """

    skeleton: Skeleton
    source: WeightSource
    index: int
    rows: Sequence[Batch]
    before: Artifact | None
    original: Artifact | None

    @classmethod
    def of(cls, task: Task, source: WeightSource, device: str) -> Inputs:
        """Those of the layer of `task`; the skeleton is kept for the worker's next task."""
        index = task.index or 0
        before, original = task.inputs.get(ACTIVATIONS), task.inputs.get(ORIGINAL)
        if index and (before is None or original is None):
            raise StageFailed(
                f"nothing hands the layer {task.member} the activations before it",
                remedy=f"give node compress the inputs `{ACTIVATIONS}: propagate@previous` and "
                f"`{ORIGINAL}: reference@previous`, as conf/graph/calibrated.yaml does",
            )
        size = FIRST if before is None else int(before.meta["batch_size"])
        return cls(
            skeleton=kept_skeleton(task, device),
            source=source,
            index=index,
            rows=tuple(batches(task.inputs["tokens"], size)),
            before=before,
            original=original,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An argument (its number or name) of one call of a module; "" is what the layer hands on."""

    module: str
    argument: int | str = 0
    call: int = 0


@dataclass(kw_only=True, slots=True)
class Watch:
    """What is recorded of one forward: inputs of Linears by name, and values at places.

    calls: how often each module is called in a forward. It ends when all is there.
    """

    inputs: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    calls: Mapping[str, int] = field(default_factory=dict)
    seen: dict[tuple[str, str | Place], list[Tensor]] = field(default_factory=dict)
    _left: int = 0
    _count: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def hooked(self, model: nn.Module) -> Iterator[None]:
        """Context in which forwards of `model` are recorded."""
        with ExitStack() as stack:
            for name in self.inputs:
                module = model.get_submodule(name)
                stack.callback(module.register_forward_pre_hook(self._input(name)).remove)
            for name in {place.module for place in self.places if place.module}:
                module = model.get_submodule(name)
                hook = module.register_forward_pre_hook(self._argument(name), with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def begin(self) -> None:
        """Forget the forward before."""
        self.seen, self._count = {}, {}
        self._left = sum(self.calls[name] for name in self.inputs)
        self._left += len(self.places)

    def finish(self, hidden: Tensor | None) -> None:
        """The forward is over, with `hidden` handed on if it was not left before that."""
        for place in self.places:
            if not place.module and hidden is not None:
                self.seen["place", place] = [hidden]
                self._left -= 1
        if self._left:
            raise StageFailed(
                f"{', '.join(self.inputs)}: not called in every batch as often as in the first",
                remedy="report the architecture with its config.json, and say modifier=gptq",
            )

    def _take(self, what: str, of: str | Place, value: Tensor) -> None:
        self.seen.setdefault((what, of), []).append(value.detach())
        self._left -= 1
        if self._left == 0:
            raise Enough

    def _input(self, name: str) -> Callable[..., None]:
        return lambda module, args: self._take("input", name, args[0])

    def _argument(self, name: str) -> Callable[..., None]:
        def seen(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            del module
            call = self._count[name] = self._count.get(name, -1) + 1
            for place in self.places:
                if place.module == name and place.call == call:
                    self._take("place", place, argument_of(place.argument, args, kwargs))

        return seen


def argument_of(argument: int | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A tensor among the arguments of a call."""
    found: Tensor = args[argument] if isinstance(argument, int) else kwargs[argument]
    return found


@dataclass(kw_only=True, slots=True)
class Chains:
    """A layer within `opened`, ready to run in either model."""

    given: Inputs
    rules: Mapping[str, InputRule]
    weights: Mapping[str, nn.Parameter]
    own: Mapping[str, Tensor]
    quantized: dict[str, Tensor] = field(default_factory=dict)

    @property
    def model(self) -> nn.Module:
        return self.given.skeleton.model

    @property
    def device(self) -> torch.device:
        return self.given.skeleton.device

    def before(self, batch: Batch, *, original: bool) -> Boundary | None:
        """What is handed to the layer for a batch; None for the first layer."""
        artifact = self.given.original if original else self.given.before
        if artifact is None:
            return None
        return read_activations(artifact, batch, device=str(self.device))

    def put(self, name: str, weight: Tensor) -> None:
        """Let a Linear of the compressed model have this weight from now on."""
        self.quantized[name] = weight.to(self.own[name].dtype)

    @contextmanager
    def side(self, *, original: bool) -> Iterator[None]:
        """Context in which the layer is that of one of the models."""
        weights = self.own if original else {**self.own, **self.quantized}
        for name, weight in weights.items():
            self.weights[name].data = weight
        with simulated_inputs(self.model, {} if original else self.rules):
            yield

    def run(self, ids: Tensor, before: Boundary | None, watch: Watch | None = None) -> Tensor:
        """What the layer hands on, hidden state only; an empty tensor where `watch` ended it."""
        if watch is not None:
            watch.begin()
        hidden: Tensor | None = None
        try:
            hidden = replay(self.given.skeleton, self.given.index, ids, before).hidden
        except Enough:
            pass
        if watch is not None:
            watch.finish(hidden)
        return torch.empty(0) if hidden is None else hidden


@contextmanager
def opened(
    given: Inputs, layer: LayerState, names: Sequence[str], rules: Mapping[str, InputRule]
) -> Iterator[Chains]:
    """Context in which the layer can be run, with other weights in the modules `names`.

    All else of it is as `layer` holds it, after transforms; `rules` quantize inputs of modules of
    the compressed model.
    """
    bones = given.skeleton
    with materialized_layer(bones, given.index, layer, given.source):
        weights = {n: bones.model.get_submodule(n).get_parameter("weight") for n in names}
        own = {name: weight.data for name, weight in weights.items()}
        yield Chains(given=given, rules=rules, weights=weights, own=own)
