"""Relative names of modules with a star for the number of an expert, in one decoder layer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from stages.model.blueprint import Pair
from stages.model.pairs.proven import STAR, PairPattern


@dataclass(frozen=True, kw_only=True, slots=True)
class Namer:
    """Turns names in a layer into those of patterns.

    `experts`: lists of experts by relative name, and how many there are. `head_dim`: see
    `head_dim_of`.
    """

    prefix: str
    experts: Mapping[str, int]
    head_dim: int

    @classmethod
    def of(cls, layer: nn.Module, name: str) -> Namer:
        """The namer of the decoder layer called `name`."""
        lists = {n: len(experts) for n, experts in expert_lists(layer).items()}
        return cls(prefix=f"{name}.", experts=lists, head_dim=head_dim_of(layer))

    def starred(self, name: str) -> str:
        """The name relative to the layer, with a star for an expert's number."""
        return self._split(name)[0]

    def unfit(self, pair: Pair) -> str:
        """Why no pattern stands for a proven pair; "" where one does."""
        own = self._split(pair.source)[1]
        found = Counter(self._split(target) for target in pair.targets)
        numbers: dict[str, set[str]] = {}
        for starred, number in found:
            numbers.setdefault(starred, set()).add(number)
        for starred, given in numbers.items():
            if STAR not in starred:
                continue
            container = starred.partition(f".{STAR}.")[0]
            wanted = {own} if own else {str(i) for i in range(self.experts[container])}
            if given != wanted:
                return f"of the experts, only {', '.join(sorted(given))} were seen to read it"
        if pair.repeats > 1 and pair.source_kind == "linear" and pair.head_dim != self.head_dim:
            return f"channels are read in groups of {pair.head_dim}, not by heads"
        return ""

    def pattern(self, pair: Pair) -> PairPattern:
        """The pattern of a pair of this layer."""
        grouped = "" if pair.repeats == 1 else "heads" if pair.source_kind == "linear" else "all"
        return PairPattern(
            source=self.starred(pair.source),
            targets=tuple(dict.fromkeys(map(self.starred, pair.targets))),
            source_kind=pair.source_kind,
            norm_offset=pair.norm_offset,
            grouped=grouped,
        )

    def _split(self, name: str) -> tuple[str, str]:
        """The starred name and the number in place of the star."""
        local = name.removeprefix(self.prefix)
        for container in self.experts:
            found = re.match(rf"{re.escape(container)}\.(\d+)\.(.+)", local)
            if found:
                return f"{container}.{STAR}.{found[2]}", found[1]
        return local, ""


def expert_lists(layer: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of experts in a decoder layer, by relative name."""
    return {
        name: module
        for name, module in layer.named_modules()
        if isinstance(module, nn.ModuleList) and name.rpartition(".")[2] == "experts"
    }


def head_dim_of(layer: nn.Module) -> int:
    """The width of an attention head as the layer's own attention says it; 0 without attention.

    The config is no place to ask: layers may differ, and state-space models have no heads.
    """
    widths = (getattr(module, "head_dim", None) for module in layer.modules())
    return next((width for width in widths if isinstance(width, int)), 0)
