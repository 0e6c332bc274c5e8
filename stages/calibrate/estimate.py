"""Estimates of bytes, memory and time to calibrate or propagate one layer."""

from __future__ import annotations

from dataclasses import replace

from pipeline.stage import Estimate, Site
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import FORWARD_FLOPS, MODEL_PROCESS
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint, Subgraph

GRAM = "gram"
"""The only statistic that takes space."""


def estimates(
    site: Site, batch_size: int | None, *, grams: bool, device: str = "cpu"
) -> dict[str | None, Estimate]:
    """Bytes, memory and seconds by layer; empty while model, tokens or batch size are unknown."""
    blueprint, tokens = site.facts.get("model"), site.facts.get("tokens")
    if not isinstance(blueprint, Blueprint) or not isinstance(tokens, dict) or batch_size is None:
        return {}
    rows, width = tokens["samples"], tokens["sequence_length"]
    batch = min(batch_size, rows)
    found: dict[str | None, Estimate] = {
        layer.name: _estimate(blueprint, layer, rows, width, batch, grams)
        for layer in blueprint.layers
    }
    if device == "cpu":
        return found
    return {
        layer.name: _on_gpu(
            found[layer.name], blueprint, layer, (rows, width, batch), grams, device
        )
        for layer in blueprint.layers
    }


def _estimate(
    blueprint: Blueprint, layer: Subgraph, rows: int, width: int, batch: int, grams: bool
) -> Estimate:
    size = layer.bytes // max(1, layer.parameters)
    activations = rows * width * blueprint.hidden_size * size
    shared = _shared(layer)
    gram = sum(4 * n * n for n in shared.values()) if grams else 0
    working = batch * sequence_bytes(blueprint, layer, width, "cpu")
    operations = 2 * layer.parameters * rows * width
    operations += sum(n * n * rows * width for n in shared.values()) if grams else 0
    return Estimate(
        bytes=activations + gram,
        memory=MODEL_PROCESS + layer.bytes + gram + working,
        seconds=operations / FORWARD_FLOPS,
        outputs={ACTIVATIONS: activations} | ({GRAM: gram} if grams else {}),
    )


def _on_gpu(
    cost: Estimate,
    blueprint: Blueprint,
    layer: Subgraph,
    tokens: tuple[int, int, int],
    grams: bool,
    device: str,
) -> Estimate:
    """The same on a GPU; activations between layers are not counted, for they may lie elsewhere."""
    rows, width, batch = tokens
    shared = _shared(layer).values() if grams else ()
    fixed = layer.bytes + sum(4 * n * n for n in shared)
    each = sequence_bytes(blueprint, layer, width, device)
    forward = 2 * layer.parameters * rows * width / gpu.FORWARD_FLOPS
    return replace(
        cost,
        memory=MODEL_PROCESS + gpu.CUDA_PROCESS + layer.bytes,
        seconds=gpu.LAYER_SECONDS
        + forward
        + sum(gpu.gram_seconds(rows * width, n) for n in shared),
        device_memory=fixed + batch * each,
        remedy=gpu.smaller_batch(device, "calibrate.batch_size", batch, fixed, each),
    )


def sequence_bytes(blueprint: Blueprint, layer: Subgraph, width: int, device: str) -> int:
    """What the forward of one sequence of `width` tokens takes beside the layer's weights.

    A few hidden states, and the widest input: in float32 for its statistic on a CPU.
    """
    size = layer.bytes // max(1, layer.parameters)
    widest = max((linear.in_features for linear in layer.linears), default=0)
    wide = 4 * widest if device == "cpu" else 3 * size * widest
    return width * (6 * blueprint.hidden_size * size + wide)


def _shared(layer: Subgraph) -> dict[str, int]:
    """Input width of each statistic; fused Linears share one, and so do the experts of a layer."""
    first = {name: group[0] for group in layer.fused for name in group}
    return {
        "experts"
        if linear.expert and not linear.name.endswith("down_proj")
        else first.get(linear.name, linear.name): linear.in_features
        for linear in layer.linears
    }
