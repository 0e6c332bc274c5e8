"""Compute dtype of a model, which may be wider than the dtype that its weights are stored in."""

from __future__ import annotations

from dataclasses import replace

from stages.model.blueprint import Blueprint

HALF = ("bfloat16", "float16")


def computed(blueprint: Blueprint, device: str) -> Blueprint:
    """The blueprint with the dtype in which `device` computes.

    On a CPU half-precision models run in float32: few CPUs have fast half-precision products (one
    without was eight times slower in bfloat16), and the results of two machines agree better.
    """
    if device == "cpu" and blueprint.dtype in HALF:
        return replace(blueprint, dtype="float32")
    return blueprint
