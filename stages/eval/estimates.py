"""What evaluation costs, for the plan: from the blueprint and the number of tokens alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from pipeline.stage import Estimate
from stages.model.blueprint import Blueprint
from stages.model.compute_dtype import computed

LIBRARIES = 500 * 2**20
"""Memory of a process that has imported torch and transformers."""

STARTUP = 1.0
FLOPS = 6e10
"""Floating-point operations a second of a small machine (two cores with AVX2) in float32."""

BYTES = 5e9
"""Bytes of weights a second that such a machine generates with."""

WIDTHS = {"float32": 4, "float64": 8}


def hidden_estimate(model: object, tokens: object, batch_size: int, device: str) -> Estimate:
    """Of one pass over the layers; nothing is known (zeros) where the inputs say nothing yet."""
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return Estimate()
    length = tokens["sequence_length"]
    count = tokens["samples"] * length
    width = _width(computed(model, device))
    layer = max(layer.parameters for layer in model.layers)
    embedding = model.vocab_size * model.hidden_size
    states = 16 * min(batch_size * length, count) * model.hidden_size
    parameters = sum(layer.parameters for layer in model.layers)
    return Estimate(
        bytes=count * model.hidden_size * width,
        memory=LIBRARIES + width * (layer + embedding + states),
        seconds=STARTUP + 2 * parameters * count / FLOPS,
    )


def eval_estimate(model: object, tokens: object) -> Estimate:
    """Of making and comparing both models' logits."""
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return Estimate()
    head = model.vocab_size * model.hidden_size
    count = tokens["samples"] * tokens["sequence_length"]
    return Estimate(
        bytes=1024, memory=LIBRARIES + 10 * head + 2**28, seconds=STARTUP + 5 * head * count / FLOPS
    )


def model_bytes(model: Blueprint) -> int:
    """The size of all weights in the dtype of `model`, tied ones once."""
    outside = {name: prod(model.outside_shapes[own]) for own, name in model.outside.items()}
    layers = sum(layer.parameters for layer in model.layers)
    return (layers + sum(outside.values())) * _width(model)


def generate_estimate(model: object, limit: int, tokens: int) -> Estimate:
    """Of generating `tokens` tokens, half of them with each model, if these fit `limit` bytes."""
    if not isinstance(model, Blueprint):
        return Estimate()
    size = model_bytes(model)
    if size > limit:
        return Estimate(bytes=1024, memory=LIBRARIES)
    return Estimate(bytes=4096, memory=LIBRARIES + size, seconds=STARTUP + tokens * size / BYTES)


def _width(model: Blueprint) -> int:
    return WIDTHS.get(model.dtype, 2)
