"""Language models: blueprint, skeleton on the meta device, replay of layers, activations."""

from stages.model.blueprint import Blueprint, LinearSpec, Pair, Subgraph

__all__ = ["Blueprint", "LinearSpec", "Pair", "Subgraph"]
