"""Other forwards for some modules of a model, for a while, and the way out of a forward."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

Forward = Callable[..., Any]


class Reached(Exception):
    """Leaves the forward with the wanted value."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Decoded(BaseModelOutputWithPast):
    """The output of a decoder that did not run: None for all but the hidden state."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def replaced_forward(forwards: Iterable[tuple[nn.Module, Forward]]) -> Iterator[None]:
    """Context in which modules have another forward; their classes stay unchanged."""
    with ExitStack() as stack:
        for module, forward in forwards:
            outer = module.__dict__.get("forward")
            module.__dict__["forward"] = forward
            stack.callback(_put_back, module, outer)
        yield


def _put_back(module: nn.Module, forward: Forward | None) -> None:
    if forward is None:
        module.__dict__.pop("forward")
    else:
        module.__dict__["forward"] = forward
