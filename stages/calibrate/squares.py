"""How much the loss feels each output of a layer's Linears."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(kw_only=True, slots=True)
class Squares:
    """Sums g^2 over tokens for each output of `names`, g the derivative of a loss by that output.

    `sums`: module -> float64 [out] on the CPU; only modules that a gradient has reached.
    """

    names: Sequence[str]
    sums: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, layer: nn.Module, *, prefix: str) -> Iterator[None]:
        """Within it, backward passes through `layer`, whose modules are `prefix`..., are summed."""
        with ExitStack() as stack:
            for name in self.names:
                module = layer.get_submodule(name.removeprefix(prefix))
                stack.callback(module.register_forward_hook(self._hook(name)).remove)
            yield

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def ran(module: nn.Module, args: Any, output: Tensor) -> None:
            del module, args
            if not torch.is_grad_enabled():
                return
            if not output.requires_grad:  # nothing before it wants a gradient: it starts here
                output.requires_grad_()
            output.register_hook(lambda g: self._add(name, g))

        return ran

    def _add(self, name: str, gradient: Tensor) -> None:
        rows = gradient.detach().reshape(-1, gradient.shape[-1]).float()
        found = rows.square().sum(dim=0, dtype=torch.float64).cpu()
        self.sums[name] = self.sums[name] + found if name in self.sums else found
