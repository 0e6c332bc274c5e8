"""Estimates of bytes, memory and time to calibrate or propagate one layer."""

from __future__ import annotations

from pipeline.stage import Estimate, Site
from stages.compute.estimates import FORWARD_FLOPS, MODEL_PROCESS
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint, Subgraph

GRAM = "gram"
"""The only statistic that takes space."""


def estimates(site: Site, batch_size: int, *, grams: bool) -> dict[str | None, Estimate]:
    """Bytes, memory and seconds by layer; empty while model or tokens are unknown."""
    blueprint, tokens = site.facts.get("model"), site.facts.get("tokens")
    if not isinstance(blueprint, Blueprint) or not isinstance(tokens, dict):
        return {}
    rows, width = tokens["samples"], tokens["sequence_length"]
    return {
        layer.name: _estimate(blueprint, layer, rows, width, min(batch_size, rows), grams)
        for layer in blueprint.layers
    }


def _estimate(
    blueprint: Blueprint, layer: Subgraph, rows: int, width: int, batch: int, grams: bool
) -> Estimate:
    size = layer.bytes // max(1, layer.parameters)
    activations = rows * width * blueprint.hidden_size * size
    shared = _shared(layer)
    gram = sum(4 * n * n for n in shared.values()) if grams else 0
    widest = max((linear.in_features for linear in layer.linears), default=0)
    # in one forward: a few hidden states, and an input in float32 for its statistic
    working = batch * width * (6 * blueprint.hidden_size * size + 4 * widest)
    operations = 2 * layer.parameters * rows * width
    operations += sum(n * n * rows * width for n in shared.values()) if grams else 0
    return Estimate(
        bytes=activations + gram,
        memory=MODEL_PROCESS + layer.bytes + gram + working,
        seconds=operations / FORWARD_FLOPS,
        outputs={ACTIVATIONS: activations} | ({GRAM: gram} if grams else {}),
    )


def _shared(layer: Subgraph) -> dict[str, int]:
    """Input width of each statistic; fused Linears share one, and so do the experts of a layer."""
    first = {name: group[0] for group in layer.fused for name in group}
    return {
        "experts"
        if linear.expert and not linear.name.endswith("down_proj")
        else first.get(linear.name, linear.name): linear.in_features
        for linear in layer.linears
    }
