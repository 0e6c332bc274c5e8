"""Data flow of a forward pass: tensors that are computed from given ones.

Where all decoder layers are stand-ins, it shows what the model does around them: whether it hands
the token embeddings on, say, for which no weights but those outside the layers are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Derived(TorchFunctionMode):
    """Context that follows what is computed from the tensors it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, Tensor] = {}  # by id; held, so that no id is given twice

    def add(self, value: object) -> None:
        """Follow every tensor in `value`."""
        self.tensors |= {id(tensor): tensor for tensor in tensors_in(value)}

    def reaches(self, value: object) -> bool:
        """Whether a tensor in `value` was computed from those that were added."""
        return any(id(tensor) in self.tensors for tensor in tensors_in(value))

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if self.reaches((args, kwargs)):
            self.add(result)
        return result


def tensors_in(value: object) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
