"""In which dtype a model is run; stored weights keep the values that engines see."""

from __future__ import annotations

from dataclasses import replace

from stages.model.blueprint import Blueprint

HALF = ("bfloat16", "float16")


def computed(blueprint: Blueprint, device: str) -> Blueprint:
    """The blueprint to build the skeleton of.

    A CPU computes half-precision models in float32: few have fast half-precision products (one
    without was measured eight times slower in bfloat16), and results of two machines agree better.
    """
    if device == "cpu" and blueprint.dtype in HALF:
        return replace(blueprint, dtype="float32")
    return blueprint
