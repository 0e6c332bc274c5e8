"""Kinds of smoothing pairs that transforms choose from, and the checks of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UserError
from stages.model.blueprint import Blueprint

LOOKED = {
    "norm": "a norm whose output only Linears and routers read",
    "linear": "a Linear whose output reaches Linears with every channel's factor kept",
}
PAIRS = tuple(LOOKED)


def check_pairs(pairs: Sequence[str]) -> None:
    """Raise UserError unless `pairs` lists kinds of pairs, one at least."""
    if not pairs or not set(pairs) <= set(PAIRS):
        raise UserError(f"pairs is {pairs}", remedy=f"choose from {', '.join(PAIRS)}")


def without_pairs(pairs: Sequence[str], blueprint: Blueprint) -> str:
    """Why there is nothing between which a factor can move; "" where there is."""
    if any(pair.source_kind in pairs for layer in blueprint.layers for pair in layer.pairs):
        return ""
    looked = ", ".join(f"{kind} ({LOOKED[kind]})" for kind in pairs)
    return (
        f"{blueprint.model_type} has no pairs of modules between which a factor can move, "
        f"with a reader that is quantized; pairs: {looked}"
    )


def other_pairs(kind: str, blueprint: Blueprint) -> str:
    """How to ask a transform for the kinds of pairs that a model has; "" where it has none."""
    found = {pair.source_kind: pair for layer in blueprint.layers for pair in layer.pairs}
    such = [f"{pair.source} -> {pair.targets[0]}" for pair in found.values()]
    if not found:
        return ""
    return f"it has others, such as {'; '.join(such)}: modifier.{kind}.pairs=[{','.join(found)}]"
