"""What evaluation costs, for the plan: from the blueprint and the number of tokens alone."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from pipeline.graph import Estimate
from stages.model.blueprint import Blueprint

LIBRARIES = 700 * 2**20
"""Memory of a process that has imported torch and transformers."""

STARTUP = 3.0
FLOPS = 2e11
"""Floating-point operations a second of a small machine in the model's dtype (two cores)."""

FLOPS_FLOAT32 = 6e10
WIDTH = {"float32": 4, "float64": 8}


def hidden_estimate(model: object, tokens: object, batch_size: int) -> Estimate:
    """Of one pass over the layers; nothing is known (zeros) where the inputs say nothing yet."""
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return Estimate()
    count, length = tokens["samples"] * tokens["sequence_length"], tokens["sequence_length"]
    state = model.hidden_size * _width(model)
    layer = max(layer.bytes for layer in model.layers)
    embedding = model.vocab_size * state
    batch = min(batch_size * length, count) * state * 16
    parameters = sum(layer.parameters for layer in model.layers)
    return Estimate(
        bytes=count * state,
        memory=LIBRARIES + layer + embedding + batch,
        seconds=STARTUP + 2 * parameters * count / FLOPS,
    )


def eval_estimate(model: object, tokens: object) -> Estimate:
    """Of making and comparing both models' logits."""
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return Estimate()
    count = tokens["samples"] * tokens["sequence_length"]
    head = model.vocab_size * model.hidden_size
    return Estimate(
        bytes=4096,
        memory=LIBRARIES + 8 * head + 2**28,
        seconds=STARTUP + 4 * head * count / FLOPS_FLOAT32,
    )


def model_bytes(model: Blueprint) -> int:
    """The size of all weights in the model's dtype, tied ones once."""
    outside = {name: prod(model.outside_shapes[own]) for own, name in model.outside.items()}
    return sum(layer.bytes for layer in model.layers) + sum(outside.values()) * _width(model)


def generate_estimate(model: Any, limit: int, tokens: int) -> Estimate:
    """Of generating `tokens` tokens with each of both models, if they fit `limit` bytes."""
    if not isinstance(model, Blueprint) or (size := model_bytes(model)) > limit:
        return Estimate()
    return Estimate(bytes=65536, memory=LIBRARIES + 2 * size, seconds=STARTUP + tokens * size / 1e9)


def _width(model: Blueprint) -> int:
    return WIDTH.get(model.dtype, 2)
