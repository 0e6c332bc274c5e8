"""Forwards wholly in float64: casts that a model's code makes to narrower floats are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

NARROW = (torch.float32, torch.bfloat16, torch.float16)


class Double(TorchDispatchMode):
    """Context in which tensors that are asked for in a narrower float are made in float64.

    Norms, softmax and routers of transformers compute in float32 whatever the model's dtype is.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        wide = dict(kwargs or {})
        if wide.get("dtype") in NARROW:
            wide["dtype"] = torch.float64
        return func(*args, **wide)
