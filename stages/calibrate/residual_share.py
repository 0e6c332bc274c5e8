"""Share of the residual stream that each block of a decoder layer writes.

A relative error in what a block writes matters in proportion to what it adds to the residual
stream. A few tokens (often the first one) have activations that are larger than all others by
orders of magnitude, so the share is computed for each token and averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

WHOLE = ""
"""The name of the layer as a whole among its blocks."""


@dataclass(kw_only=True, slots=True)
class Shares:
    """Hooks that gather |y|^2 / (|x|^2 + |y|^2) of each token; a block adds y to layer input x.

    `blocks` are direct children of the layer; one whose output is no hidden state is left out.
    """

    blocks: tuple[str, ...]
    sums: dict[str, float] = field(default_factory=dict)
    tokens: int = 0
    _before: Tensor | None = None
    _written: dict[str, Tensor] = field(default_factory=dict)

    @contextmanager
    def watching(self, layer: nn.Module) -> Iterator[None]:
        """Context in which the input of `layer` and the outputs of its blocks are recorded."""
        with ExitStack() as stack:
            seen = layer.register_forward_pre_hook(self._enter, with_kwargs=True)
            stack.callback(seen.remove)
            for name in self.blocks:
                block = layer.get_submodule(name)
                stack.callback(block.register_forward_hook(self._hook(name)).remove)
            yield

    def take(self, output: Tensor | None, valid: Tensor | None) -> None:
        """Add one forward: its `output` [b, T, hidden]; valid: bool [b, T], False for padding.

        One that ended early, without an output, is left out.
        """
        before, self._before = self._before, None
        written, self._written = self._written, {}
        if output is None or before is None or before.shape != output.shape:
            return
        x = _energy(before, valid)
        self.tokens += len(x)
        written[WHOLE] = output - before
        for name, y in written.items():
            if y.shape == before.shape:
                part = _energy(y, valid)
                share = part / (x + part).clamp_min(torch.finfo(torch.float32).tiny)
                self.sums[name] = self.sums.get(name, 0.0) + float(share.double().sum())

    def finish(self) -> dict[str, float]:
        """Block -> mean share, in [0, 1]."""
        return {name: total / max(1, self.tokens) for name, total in sorted(self.sums.items())}

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        given = [*args, *kwargs.values()]
        self._before = next((x for x in given if isinstance(x, Tensor) and x.dim() == 3), None)

    def _hook(self, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def seen(module: nn.Module, args: Any, output: Any) -> None:
            del module, args
            value = output[0] if isinstance(output, tuple) else output
            if isinstance(value, Tensor):
                self._written[name] = value

        return seen


def blocks_of(layer: str, modules: Iterable[str]) -> tuple[str, ...]:
    """Names in `layer` of its direct children that contain some of `modules`, in order."""
    inside = [name.removeprefix(f"{layer}.") for name in modules]
    return tuple(dict.fromkeys(name.partition(".")[0] for name in inside if "." in name))


def _energy(x: Tensor, valid: Tensor | None) -> Tensor:
    """Squared norm of every token, float32 [n]."""
    energy: Tensor = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float32).square()
    return energy.flatten() if valid is None else energy[valid]
