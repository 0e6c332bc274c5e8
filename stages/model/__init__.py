"""What several stages know about a language model: blueprint, skeleton, replay, activations."""

from stages.model.blueprint import Blueprint, LinearSpec, Pair, Subgraph

__all__ = ["Blueprint", "LinearSpec", "Pair", "Subgraph"]
