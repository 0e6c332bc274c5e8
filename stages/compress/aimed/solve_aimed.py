"""Solve a decoder layer aimed at the original's outputs, one group of Linears after another.

Linears that see the same input are a group, and groups are solved in the order in which they run.
For each the layer runs over all sequences in both models, in the compressed one with the groups
before it quantized (`stages.compress.aimed.sums`). That gives the Gram matrix of the inputs that
the group will really have, and by how much its outputs, or what they are added to, differ from the
original's. The rest is GPTQ.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from stages.compress.aimed.arrival import Layout, layout_of
from stages.compress.aimed.chains import Chains, Inputs, Place, opened
from stages.compress.aimed.sums import Sums, sums_of
from stages.compress.aimed.target_weight import difference_left, target_weights
from stages.compress.grid import Grid
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers.base import Solver
from stages.compress.modifiers.gptaq import Gptaq
from stages.compress.shared_scales import gram_of
from stages.compress.solve import Solved, solve_layer
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.solvers.output_error import ratio, relative_error
from stages.formats.input_params import InputRule


class GroupStatistics(Statistics):
    """The Gram matrix of one group of Linears, which all see the same input."""

    def __init__(self, first: str, sums: Sums) -> None:
        super().__init__({}, str(sums.H.device))
        self._first, self._sums = first, sums

    def leader(self, module: str) -> str:
        del module
        return self._first

    def tokens(self, module: str) -> int:
        del module
        return self._sums.tokens

    def gram(self, module: str) -> Tensor | None:
        del module
        return self._sums.H


@dataclass(kw_only=True, slots=True)
class AimedLayer:
    """The layer that is solved, and what there is to tell of it: see `stages.compress.report.aim`.

    few: Linears that saw fewer tokens than they have input channels. keeps_grams: whether Gram
    matrices are asked for by `gram` later on; they are kept on the CPU.
    """

    layer: LayerState
    modifier: Gptaq
    grids: Mapping[str, Grid]
    scales: Mapping[str, Tensor]
    rules: Mapping[str, InputRule]
    inputs: Inputs
    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    few: list[str] = field(default_factory=list)
    keeps_grams: bool = False
    _grams: dict[str, Tensor] = field(default_factory=dict)

    @property
    def plain(self) -> Solver:
        return self.modifier.outside()

    def gram(self, module: str) -> Tensor:
        """The Gram matrix of a solved module's inputs, behind all that was solved before it."""
        found = self._grams.get(module)
        return gram_of(self.layer.statistics, module) if found is None else found

    def solve(self) -> Generator[Solved]:
        """Every module of `grids`: groups of Linears in order, then routed experts by plain GPTQ.

        A module with trouble runs with its own weight for the rest of the layer.
        """
        experts = {one.name for one in self.layer.subgraph.linears if one.expert}
        names = tuple(name for name in self.grids if name not in experts)
        left = dict(self.grids)
        with ExitStack() as stack:
            if names:
                chains = stack.enter_context(opened(self.inputs, self.layer, names, self.rules))
                layout = layout_of(chains, names, self.layer.subgraph.name)
                for group in groups_of(layout, self.rules):
                    for solved in self._group(chains, layout, group):
                        del left[solved.module]
                        yield solved
        routed = {name: grid for name, grid in left.items() if name in experts}
        yield from solve_layer(self.layer, self.plain, routed, self.scales, device=self.device)
        for name in [name for name in left if name not in routed]:
            yield Solved(module=name, trouble=_not_called(name))

    def _group(self, chains: Chains, layout: Layout, group: tuple[str, ...]) -> Iterator[Solved]:
        weights = {n: self.layer.peek(f"{n}.weight").to(self.device).float() for n in group}
        sums = sums_of(chains, layout, weights)
        if self.keeps_grams:
            self._grams.update(dict.fromkeys(group, sums.H.cpu()))
        if sums.tokens < len(sums.H):
            self.few.append(group[0])
        try:
            aimed = target_weights(
                list(weights.values()),
                [sums.crosses[name] for name in group],
                sums.H,
                strength=self.modifier.strength,
                damping=self.modifier.damping,
            )
        except NumericalError as error:
            yield from (Solved(module=name, trouble=error) for name in group)
            return
        part = replace(
            self.layer,
            tensors=LazyTensors({}),
            statistics=GroupStatistics(group[0], sums),
            content=(),
        )
        for name, weight in zip(group, aimed, strict=True):
            part.tensors[f"{name}.weight"] = weight
        grids = {name: self.grids[name] for name in group}
        for solved in solve_layer(part, self.plain, grids, self.scales, device=self.device):
            yield self._taken(solved, weights[solved.module], sums, chains, layout)

    def _taken(
        self, solved: Solved, weight: Tensor, sums: Sums, chains: Chains, layout: Layout
    ) -> Solved:
        """The solved module with its error against the layer's own weight; it runs from now on."""
        name, found = solved.module, solved.quantized
        if found is None:
            return solved
        chains.put(name, found.weight)
        left = difference_left(
            sums.differences[name], weight, found.weight, sums.H, sums.crosses[name]
        )
        arrival = layout.arrivals.get(name)
        self.rows.append(
            {
                "module": name,
                "aimed_at": _told(None if arrival is None else arrival.place),
                "before": ratio(sums.differences[name], sums.wanted[name]),
                "after": ratio(left, sums.wanted[name]),
            }
        )
        return replace(solved, relative_error=relative_error(weight, found.weight, sums.H))


def groups_of(layout: Layout, rules: Mapping[str, InputRule]) -> list[tuple[str, ...]]:
    """Linears that see the same input, rounded alike, in the order in which they run."""
    found: list[list[str]] = []
    for name, first in layout.shared.items():
        alike = (
            group
            for group in found
            if layout.shared[group[0]] == first and _alike(rules.get(group[0]), rules.get(name))
        )
        group = next(alike, None)
        if group is None:
            found.append([name])
        else:
            group.append(name)
    return [tuple(group) for group in found]


def _alike(one: InputRule | None, other: InputRule | None) -> bool:
    """Whether two rules round an input to the same values."""
    if one is None or other is None:
        return one is other
    pairs = [
        (getattr(one.params, part), getattr(other.params, part))
        for part in ("scale", "zero_point", "global_scale")
    ]
    return one.args == other.args and all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs
    )


def _told(place: Place | None) -> str:
    """A place in words, for a report."""
    if place is None:
        return "its own output"
    return f"the input of {place.module}" if place.module else "the layer's output"


def _not_called(name: str) -> NumericalError:
    return NumericalError(
        name=name,
        reason="the layer does not call it",
        remedy="put the module in scheme.ignore",
    )
