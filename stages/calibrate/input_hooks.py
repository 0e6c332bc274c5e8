"""Hooks that gather statistics of Linears' inputs, once for all Linears that share an input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import StageFailed
from stages.calibrate.statistics.base import Statistic, given_to


class Enough(Exception):
    """Every module has seen its inputs of this forward; nothing after it is needed."""


@dataclass(slots=True)
class Collected:
    """Gathered statistics; the leader of a group is the first module that sees its input.

    `groups`: module -> leader; `tokens`: leader -> number of rows; `values`: name of a statistic ->
    leader -> tensor.
    """

    groups: dict[str, str]
    tokens: dict[str, int]
    values: dict[str, dict[str, Tensor]]

    def is_finite(self) -> bool:
        """Whether no statistic of any input is infinite or NaN."""
        return all(
            bool(value.isfinite().all())
            for found in self.values.values()
            for value in found.values()
        )


@dataclass(kw_only=True, slots=True)
class Collector:
    """Gathers statistics of the inputs of `names` (in module order) over several forwards."""

    names: Sequence[str]
    statistics: Mapping[str, Statistic]
    device: str
    groups: dict[str, str] = field(default_factory=dict)
    states: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    rows: Tensor | None = None
    _valid: Tensor | None = None
    _seen: dict[tuple[int, ...], tuple[Tensor, str]] = field(default_factory=dict)
    _calls: Counter[str] = field(default_factory=Counter)
    _whole: Counter[str] | None = None
    _left: int | None = None

    @contextmanager
    def watching(self, layer: nn.Module, *, prefix: str, send_all: bool) -> Iterator[None]:
        """Context in which forwards of `layer` (modules `prefix`...) are gathered.

        `send_all`: routed experts get all tokens, not only those routed to them.
        """
        with ExitStack() as stack:
            for name in self.names:
                module = layer.get_submodule(name.removeprefix(prefix))
                stack.callback(module.register_forward_pre_hook(self._hook(name)).remove)
            for module in layer.modules():
                if hasattr(module, "send_all"):
                    stack.callback(_set, module, send_all=module.send_all, on_rows=module.on_rows)
                    _set(module, send_all=send_all, on_rows=self._on_rows)
            yield

    @contextmanager
    def forward(self, valid: Tensor | None, *, stops: bool = False) -> Iterator[None]:
        """Context of one forward, which the context leaves early if it `stops`.

        valid: bool [b, T], False for padding and for tokens that do not count; None if all count.
        A forward that stops does so once every module was called as often as in the first one,
        which does not stop; if some were not called in that one, none does.
        """
        self._valid = valid
        self._left = self._whole.total() if stops and self._whole is not None else None
        try:
            yield
        except Enough:
            pass
        finally:
            if self._whole is None and all(self._calls[name] for name in self.names):
                self._whole = self._calls.copy()
            self._valid, self.rows = None, None
            self._seen.clear()
            self._calls.clear()

    def collected(self) -> Collected:
        """Everything gathered, under the first name (in module order) of each group."""
        leaders: dict[str, str] = {}
        for name in self.names:
            if name in self.groups:
                leaders.setdefault(self.groups[name], name)
        values: dict[str, dict[str, Tensor]] = {name: {} for name in self.statistics}
        for (statistic, group), state in self.states.items():
            values[statistic][leaders[group]] = self.statistics[statistic].finish(state)
        return Collected(
            groups={n: leaders[self.groups[n]] for n in self.names if n in self.groups},
            tokens={leaders[group]: count for group, count in self.tokens.items()},
            values=values,
        )

    def _on_rows(self, rows: Tensor | None) -> None:
        self.rows = rows

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def seen(module: nn.Module, args: tuple[Any, ...]) -> None:
            del module
            self.see(name, args[0])
            self._calls[name] += 1
            if self._left is not None:
                self._left -= 1
                if self._left == 0 and self._calls == self._whole:
                    raise Enough

        return seen

    def see(self, name: str, x: Tensor) -> None:
        """Gather one input of module `name`, inside `forward`."""
        # keep a reference until the forward ends: the next tensor could reuse freed memory
        identity = (x.data_ptr(), x.numel(), x.shape[-1], x._version)
        if identity in self._seen:
            group = self._seen[identity][1]
            if self.groups.setdefault(name, group) != group:
                raise StageFailed(
                    f"{name} shares its input with other modules in some batches only",
                    remedy="report the architecture; its inputs cannot be told apart",
                )
            return
        rows = self._rows_of(name, x)
        if len(rows):
            group = self.groups.setdefault(name, name)
            self._seen[identity] = (x, group)
            self._add(group, rows)

    def _add(self, group: str, x: Tensor) -> None:
        self.tokens[group] = self.tokens.get(group, 0) + len(x)
        wide = x.to(torch.float32) if x.is_cpu else x  # once for all
        for statistic, kind in self.statistics.items():
            state = self.states.get((statistic, group))
            if state is None:
                state = kind.init(x.shape[-1], self.device)
            self.states[statistic, group] = kind.update(state, given_to(kind, wide))

    def _rows_of(self, name: str, x: Tensor) -> Tensor:
        """`x` as rows [n, in], without padding."""
        if self._valid is None:
            return x.reshape(-1, x.shape[-1])
        if x.dim() > 2 and x.shape[:2] == self._valid.shape:
            return x[self._valid].reshape(-1, x.shape[-1])
        valid = self._valid.flatten()
        if self.rows is not None:
            valid = valid[self.rows]
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) != len(valid):
            raise StageFailed(
                f"{name} has {len(flat)} input rows for {len(valid)} tokens, so that padding "
                "cannot be told from text",
                remedy="use a dataset whose sequences are packed to the full length",
            )
        return flat[valid]


def _set(module: nn.Module, **values: Any) -> None:
    for name, value in values.items():
        setattr(module, name, value)
