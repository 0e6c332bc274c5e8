"""Modules that a model calls, and those whose weight it uses without calling them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from stages.model.meta_model import NO_MODEL

TOKENS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearUse:
    """Linears by name: `called` by the decoder layer that calls them, `bare` without being called.

    A bare Linear multiplies by other means than its forward (a state-space mixer that hands the
    weight of `dt_proj` to its kernel): nothing sees its inputs, and no engine decompresses it.
    `embedding_bare`: rows of the token embedding are read in the same way (Gemma 4 with its towers
    puts the padding's row where images are).
    """

    called: Mapping[str, frozenset[str]] = field(default_factory=dict)
    bare: frozenset[str] = frozenset()
    embedding_bare: bool = False


def linear_use(
    model: nn.Module,
    layers: Iterable[str],
    skipped: Iterable[str],
    *,
    ends: tuple[nn.Module, nn.Module],
) -> LinearUse:
    """Run `model`, which is on the meta device, on some tokens and watch its Linears.

    layers: names of the decoder layers. ends: its embedding and lm_head. Modules `skipped`
    (containers of experts, which look at values that a meta tensor has not) hand zeros on, and
    nothing is said of what is inside. A model that cannot run without values gives an empty result.
    """
    skipped = tuple(skipped)
    names: dict[int, set[str]] = {}  # tied Linears have one weight
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not _inside(name, skipped):
            names.setdefault(id(module.weight), set()).add(name)
    uses = _Uses(names, ends)
    called: dict[str, set[str]] = {}
    with ExitStack() as stack:
        for name in skipped:
            module = model.get_submodule(name)
            module.__dict__["forward"] = _zeros
            stack.callback(module.__dict__.pop, "forward")
        for layer in layers:
            reached = called.setdefault(layer, set())
            for name, module in model.get_submodule(layer).named_modules():
                if isinstance(module, nn.Linear):
                    hook = _recorder(reached, f"{layer}.{name}")
                    stack.callback(module.register_forward_pre_hook(hook).remove)
        for module in ends:
            stack.callback(module.register_forward_pre_hook(uses.enter).remove)
            stack.callback(module.register_forward_hook(uses.leave).remove)
        stack.enter_context(uses)
        stack.enter_context(torch.no_grad())
        ids = torch.zeros(1, TOKENS, dtype=torch.int64, device="meta")
        try:
            model(input_ids=ids, use_cache=False)
        except NO_MODEL:
            return LinearUse(embedding_bare=uses.embedding)
    everywhere = {name for reached in called.values() for name in reached}
    inside = tuple(called)
    unseen = [names[weight] for weight in uses.seen if not names[weight] & everywhere]
    bare = {name for tied in unseen for name in tied if _inside(name, inside)}
    return LinearUse(
        called={layer: frozenset(reached) for layer, reached in called.items()},
        bare=frozenset(bare),
        embedding_bare=uses.embedding,
    )


class _Uses(TorchFunctionMode):
    """Those of `weights` (by id) that any function of torch takes.

    `embedding`: whether one makes a tensor of the weight of the first of `ends` while neither of
    these runs (its shape, dtype and device are no tensors).
    """

    def __init__(self, weights: Container[int], ends: tuple[nn.Module, nn.Module]) -> None:
        super().__init__()
        self.weights = weights
        self.weight = ends[0]._parameters.get("weight")
        self.inside = 0
        self.seen: set[int] = set()
        self.embedding = False

    def enter(self, *_: object) -> None:
        """One of the ends is called."""
        self.inside += 1

    def leave(self, *_: object) -> None:
        """One of the ends has been called."""
        self.inside -= 1

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        if func is Tensor.__bool__ and args[0].is_meta:
            return True  # masks ask whether all tokens count, or all are of one sequence
        for value in (*args, *given.values()):
            if isinstance(value, Tensor) and id(value) in self.weights:
                self.seen.add(id(value))
        result = func(*args, **given)
        if self.weight is not None and not self.inside and isinstance(result, Tensor):
            self.embedding |= any(value is self.weight for value in (*args, *given.values()))
        return result


def _zeros(*args: Any, **kwargs: Any) -> Tensor:
    """As many zeros as the first tensor has values: the output of experts has its inputs' shape."""
    given = (*args, *kwargs.values())
    return torch.zeros_like(next(value for value in given if isinstance(value, Tensor)))


def _recorder(reached: set[str], name: str) -> Callable[..., None]:
    return lambda *_: reached.add(name)


def _inside(name: str, modules: tuple[str, ...]) -> bool:
    return name.startswith(tuple(f"{module}." for module in modules))
