"""Bench for experiments with a small model: scale channels of its weights, watch what changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stages.model.blueprint import Pair
from stages.model.skeleton import Skeleton

EXACT = 64
"""Norm weights are multiples of 1 / EXACT, so that 1 + w, divided or multiplied by powers of two,
is exact in float32, and less 1 as well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What one forward shows.

    `inputs`: module with a matrix -> what it was given, call by call. `handed`: all tensors that
    decoder layers were given and gave, in order, and last the logits.
    """

    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    handed: list[Tensor] = field(default_factory=list)

    def same(self, other: Seen) -> bool:
        """Whether everything handed on is equal to the bit."""
        pairs = zip(self.handed, other.handed, strict=False)
        return len(self.handed) == len(other.handed) and all(torch.equal(a, b) for a, b in pairs)


class _Reached(Exception):
    """The forward has done the last layer that matters."""


class Bench:
    """A materialized skeleton on the CPU in float32, with token ids int64 [b, T] to run on it."""

    def __init__(self, bones: Skeleton, input_ids: Tensor) -> None:
        self.bones = bones
        self.input_ids = input_ids
        named = bones.model.named_parameters(remove_duplicate=False)
        self.tensors: dict[str, Tensor] = dict(named)
        for name, tensor in self.tensors.items():
            if tensor.dim() == 1 and name.endswith("weight"):
                tensor.data.copy_((tensor * EXACT).round() / EXACT)
        self.plain = self.run()

    def run(self, changed: Mapping[str, Tensor] | None = None, *, last: int | None = None) -> Seen:
        """One forward with parameters `changed`, up to the decoder layer number `last` or whole."""
        seen = Seen()
        layers = self.bones.layers
        with ExitStack() as stack, torch.no_grad():
            stack.enter_context(self._with(changed or {}))
            for index, (name, layer) in enumerate(
                zip(self.bones.blueprint.members, layers, strict=True)
            ):
                if last in (None, index):
                    for local, module in layer.named_modules(prefix=name):
                        if _has_matrix(module):
                            hook = _inputs_into(seen.inputs.setdefault(local, []))
                            handle = module.register_forward_pre_hook(hook, with_kwargs=True)
                            stack.callback(handle.remove)
                before = layer.register_forward_pre_hook(_given_into(seen), with_kwargs=True)
                after = layer.register_forward_hook(_handed_into(seen, stop=index == last))
                stack.callback(before.remove)
                stack.callback(after.remove)
            try:
                result = self.bones.model(input_ids=self.input_ids, use_cache=False)
            except _Reached:
                return seen
        seen.handed.append(result.logits)
        return seen

    @contextmanager
    def _with(self, changed: Mapping[str, Tensor]) -> Iterator[None]:
        before = {name: self.tensors[name].detach().clone() for name in changed}
        try:
            for name, tensor in changed.items():
                self.tensors[name].copy_(tensor)
            yield
        finally:
            for name, tensor in before.items():
                self.tensors[name].copy_(tensor)


def moved(
    tensors: Mapping[str, Tensor],
    pair: Pair,
    factors: Tensor,
    *,
    source: bool = True,
    targets: bool = True,
) -> dict[str, Tensor]:
    """What becomes of the tensors of a pair: the source divided by `factors`, targets multiplied.

    factors: [channels of the source]. Only one side where the other is left out.
    """
    new: dict[str, Tensor] = {}
    if source:
        name = f"{pair.source}.weight"
        weight = tensors[name]
        rows = factors.view(-1, *[1] * (weight.dim() - 1))
        new[name] = (weight + pair.norm_offset) / rows - pair.norm_offset
        if (bias := tensors.get(f"{pair.source}.bias")) is not None:
            new[f"{pair.source}.bias"] = bias / factors
    if targets:
        wide = widened(factors, pair.repeats, pair.head_dim)
        new |= {f"{t}.weight": tensors[f"{t}.weight"] * wide for t in pair.targets}
    return new


def widened(factors: Tensor, repeats: int, width: int) -> Tensor:
    """The factor of every input channel of a target; see `Pair`."""
    if repeats == 1:
        return factors
    return factors.view(-1, 1, width).expand(-1, repeats, -1).flatten()


def powers(channels: int, seed: int) -> Tensor:
    """Random powers of two that are not 1, float32 [channels]: scaling by them rounds nothing.

    Some are so large or small that a limit on activations (a clamp) is met.
    """
    draw = torch.Generator().manual_seed(seed)
    choice = 2.0 ** torch.tensor([-12, -2, -1, 1, 2, 12])
    return choice[torch.randint(len(choice), (channels,), generator=draw)]


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors of numbers in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from tensors_in(item)


def _has_matrix(module: nn.Module) -> bool:
    weight = module._parameters.get("weight")
    return weight is not None and weight.dim() == 2 and not isinstance(module, nn.Embedding)


def _inputs_into(found: list[Tensor]) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        del module
        first = next(tensors_in((args, kwargs)), None)
        if first is not None:
            found.append(first.clone())

    return hook


def _given_into(seen: Seen) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        del module
        seen.handed.extend(tensor.clone() for tensor in tensors_in((args, kwargs)))

    return hook


def _handed_into(seen: Seen, *, stop: bool) -> Any:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        seen.handed.extend(tensor.clone() for tensor in tensors_in(output))
        if stop:
            raise _Reached

    return hook
