"""Estimates of evaluation's bytes, memory and time, from the blueprint and the token count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import psutil

from pipeline.machine.gpus import gpu_of
from pipeline.stage import Estimate
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import EVAL_FLOPS, EVAL_PROCESS, PASSED_SHARE
from stages.model.blueprint import Blueprint
from stages.model.compute_dtype import computed

STARTUP = 1.0
FLOPS = 6e10
"""Floating-point operations per second of a small machine (two cores with AVX2) in float32."""

BYTES = 5e9
"""Bytes of weights per second that such a machine reads while it generates."""

WIDTHS = {"float32": 4, "float64": 8}


def hidden_estimate(
    model: object, tokens: object, batch_size: int, device: str, handed: int | None = None
) -> Estimate:
    """Estimate of one pass over the layers; zeros while model or tokens are unknown.

    `handed`: values of each token that a layer hands on, a hidden state (None) or more.
    """
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return Estimate()
    length = tokens["sequence_length"]
    count = tokens["samples"] * length
    width = _width(computed(model, device))
    layer = max(layer.parameters for layer in model.layers)
    embedding = model.vocab_size * model.hidden_size
    handed = max(handed or 0, model.hidden_size)
    more = 2 * (handed - model.hidden_size)
    states = (16 * model.hidden_size + more) * min(batch_size * length, count)
    parameters = sum(layer.parameters for layer in model.layers)
    passed = count * handed * width
    in_memory = passed if passed <= psutil.virtual_memory().total // PASSED_SHARE else 0
    cost = Estimate(
        bytes=count * model.hidden_size * width,
        memory=EVAL_PROCESS + width * (layer + embedding + states) + in_memory,
        seconds=STARTUP + 2 * parameters * count / EVAL_FLOPS,
    )
    if device == "cpu":
        return cost
    batch = min(batch_size, tokens["samples"])
    card = gpu_of(device)
    on_device = passed if card is None or passed <= card.total_bytes // PASSED_SHARE else 0
    fixed, each = width * (layer + embedding), width * length * (16 * model.hidden_size + more)
    fixed += on_device
    return replace(
        cost,
        memory=EVAL_PROCESS + gpu.CUDA_PROCESS + width * layer + (0 if on_device else in_memory),
        seconds=STARTUP
        + gpu.LAYER_SECONDS * len(model.layers)
        + 2 * parameters * count / gpu.FORWARD_FLOPS,
        device_memory=fixed + batch * each,
        remedy=gpu.smaller_batch(device, "eval.batch_size", batch, fixed, each),
    )


def eval_estimate(model: object, tokens: object, device: str = "cpu") -> Estimate:
    """Estimate of computing and comparing both models' logits."""
    if not isinstance(model, Blueprint) or not isinstance(tokens, Mapping):
        return Estimate()
    head = model.vocab_size * model.hidden_size
    count = tokens["samples"] * tokens["sequence_length"]
    cost = Estimate(
        bytes=1024,
        memory=EVAL_PROCESS + 10 * head + 2**28,
        seconds=STARTUP + 5 * head * count / EVAL_FLOPS,
    )
    if device == "cpu":
        return cost
    return replace(
        cost,
        memory=EVAL_PROCESS + gpu.CUDA_PROCESS,
        seconds=STARTUP + 5 * head * count / gpu.FORWARD_FLOPS,
        device_memory=10 * head + 2**28,
    )


def model_bytes(model: Blueprint) -> int:
    """The bytes of all weights in the dtype of `model`, tied ones once."""
    outside = {name: prod(model.outside_shapes[param]) for param, name in model.outside.items()}
    layers = sum(layer.parameters for layer in model.layers)
    return (layers + sum(outside.values())) * _width(model)


def generate_estimate(model: object, limit: int, tokens: int, device: str = "cpu") -> Estimate:
    """Estimate of generating `tokens` tokens, half by each model, if these fit `limit` bytes."""
    if not isinstance(model, Blueprint):
        return Estimate()
    size = model_bytes(model)
    if size > limit:
        return Estimate(bytes=1024, memory=EVAL_PROCESS)
    if device != "cpu":
        seconds, memory = STARTUP + tokens * gpu.TOKEN_SECONDS, EVAL_PROCESS + gpu.CUDA_PROCESS
        return Estimate(bytes=4096, memory=memory, seconds=seconds, device_memory=size)
    return Estimate(bytes=4096, memory=EVAL_PROCESS + size, seconds=STARTUP + tokens * size / BYTES)


def _width(model: Blueprint) -> int:
    return WIDTHS.get(model.dtype, 2)
