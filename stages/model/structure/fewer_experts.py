"""A config with fewer routed experts: how many may go, and which fields count them. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from stages.model.shrunken.config_fields import Kind, kind_of

EXTRA_LAYERS = re.compile(r"num_nextn_predict_layers|(?:num_)?mtp_(?:num_)?(?:hidden_)?layers")
"""Fields that count layers of extra predictions, which transformers does not build."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Experts of every layer, how many a token is sent to, and the groups that it may use.

    `groups` and `chosen_groups` are 1 where the router knows no groups.
    """

    experts: int
    chosen: int
    groups: int = 1
    chosen_groups: int = 1

    @staticmethod
    def of(config: Mapping[str, Any], experts: int) -> Counts:
        """Those of a config whose layers have so many experts."""
        found = {kind: [v for _, v in _numbers(config, kind)] for kind in Kind}
        groups = max(found[Kind.GROUPS], default=1)
        return Counts(
            experts=experts,
            chosen=max(found[Kind.CHOSEN], default=1),
            groups=groups,
            chosen_groups=min(found[Kind.CHOSEN_GROUPS], default=groups) if groups > 1 else 1,
        )

    def left(self, sparsity: float) -> int:
        """How many experts stay when the share `sparsity` is pruned, of each group as many.

        Raises UserError where none would go, or too few stay for the router to choose from.
        """
        gone = int(self.experts * sparsity + 1e-9)
        gone = self.groups * round(gone / self.groups)
        named = f" in {self.groups} groups" if self.groups > 1 else ""
        if gone == 0:
            raise UserError(
                f"sparsity {sparsity:g} prunes none of {self.experts} experts{named}",
                remedy=f"give {self.groups / self.experts:g} or more",
            )
        left = self.experts - gone
        reachable = self.chosen_groups * (left // self.groups)
        if reachable < self.chosen:
            raise UserError(
                f"sparsity {sparsity:g} leaves {left} of {self.experts} experts{named}, of which a "
                f"token may reach {reachable}, and it is sent to {self.chosen}",
                remedy="give a lower sparsity",
            )
        return left


def with_experts(config: Mapping[str, Any], before: int, after: int) -> dict[str, Any]:
    """A parsed config.json whose fields that count `before` experts say `after`.

    Lists of counts, one for each layer, as well. Layers of extra predictions are left out: their
    experts are not measured.
    """
    changed: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            changed[name] = with_experts(value, before, after)
        elif kind_of(name) is Kind.EXPERTS and value == before and not isinstance(value, bool):
            changed[name] = after
        elif kind_of(name) is Kind.EXPERTS and isinstance(value, list):
            changed[name] = [after if count == before else count for count in value]
        elif EXTRA_LAYERS.fullmatch(name) and value:
            changed[name] = 0
        else:
            changed[name] = value
    return changed


def counts_experts(config: Mapping[str, Any], experts: int) -> bool:
    """Whether any field of a config counts so many experts."""
    return any(value == experts for _, value in _numbers(config, Kind.EXPERTS))


def _numbers(config: Mapping[str, Any], kind: Kind) -> Iterator[tuple[str, int]]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, kind)
            continue
        for one in value if isinstance(value, list) else (value,):
            if kind_of(name) is kind and isinstance(one, int) and not isinstance(one, bool):
                yield name, one
