"""Share of a decoder layer's experts that one token goes through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.model.blueprint import Subgraph

ROUTED = 8
"""Experts that a token is sent to at most, where the config does not say. An assumption."""
_NAMES = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")


def routed_to(config: Mapping[str, Any]) -> int:
    """To how many experts of a layer a token is sent, as a model's config.json says."""
    text = config.get("text_config")
    places = (config, text) if isinstance(text, Mapping) else (config,)
    found = (place.get(name) for place in places for name in _NAMES)
    return next((count for count in found if isinstance(count, int) and count > 0), ROUTED)


def expert_share(layer: Subgraph, routed: int = ROUTED) -> float:
    """The part of the layer's experts that a token is sent to; 1 where there are none."""
    names = {linear.name.rpartition(".")[0] for linear in layer.linears if linear.expert}
    return min(routed, len(names)) / len(names) if names else 1.0


def active_parameters(layer: Subgraph, routed: int = ROUTED) -> int:
    """Parameters that one token goes through: of experts only those it is routed to."""
    experts = sum(m.in_features * m.out_features for m in layer.linears if m.expert)
    return layer.parameters - experts + int(experts * expert_share(layer, routed))
