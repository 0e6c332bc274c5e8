"""Keep tensors off the meta device while a part of a model is materialized."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class OffMeta(TorchFunctionMode):
    """Context in which what would be moved to the meta device, or made there, is on `device`.

    A model that moves its inputs to "its" device (`inputs.to(self.device)`, as Idefics 3 does) asks
    its first parameter, which may be one that is not materialized. Tensors that lie on the meta
    device already stay there.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        given = kwargs or {}
        if args and isinstance(args[0], Tensor) and args[0].is_meta:
            return func(*args, **given)
        return func(
            *(self._real(value) for value in args),
            **{name: self._real(value) for name, value in given.items()},
        )

    def _real(self, value: object) -> object:
        meta = value.type == "meta" if isinstance(value, torch.device) else value == "meta"
        return self.device if meta is True else value
