"""Planning of learned rounding: what a graph lacks for it, and what it costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Estimate
from stages.compress.modifiers.autoround import AutoRound
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import FORWARD_FLOPS
from stages.compute.work import BACKWARD, LEARN, added
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.proofs.proof_input import PROOF
from stages.model.routed_work import active_parameters, expert_share

LATENT_BYTES = 24
"""Times parameters: latent codes, two moments, the weight, its gradient, and what was kept."""
INPUTS = ("target", "tokens", PROOF)
"""Inputs of `compress` without which nothing can be learned; `activations` comes beside them."""
ADDITION = {
    "target": "reference",
    "tokens": "tokens",
    PROOF: "prove",
    "activations": "propagate@previous",
}


def learning_problem(solver: AutoRound, facts: Mapping[str, Any]) -> UserError | None:
    """Why a graph of these facts about the inputs of `compress` cannot learn; None: it can."""
    if missing := [name for name in INPUTS if name not in facts]:
        wiring = ", ".join(f"{name}: {node}" for name, node in ADDITION.items())
        return UserError(
            f"modifier {solver.kind!r} runs decoder layers to learn from their output, and nothing "
            f"gives compress its {', '.join(missing)}",
            remedy=f"say graph=calibrated, or give node compress the inputs {wiring}, as "
            "conf/graph/calibrated.yaml does; modifier.autoround.iterations=0 learns nothing",
        )
    tokens = facts["tokens"]
    samples = tokens.get("samples") if isinstance(tokens, dict) else None
    if solver.held_out and samples is not None and samples < 2:
        return UserError(
            f"modifier {solver.kind!r} holds sequences out to see what it has learned, and there "
            f"is {samples} sequence in all",
            remedy="say dataset.num_samples=2 or more: 16 are few, 128 are good",
        )
    return None


def learning_cost(
    cost: Estimate,
    solver: AutoRound,
    layer: Subgraph,
    formats: Collection[str],
    tokens: Any,
    *,
    device: str,
) -> Estimate:
    """The `cost` of solving a layer with that of learning it; unchanged while tokens are unknown.

    formats: names of the modules that are quantized.
    """
    if not isinstance(tokens, dict):
        return cost
    width = tokens["sequence_length"]
    learned = sum(m.in_features * m.out_features for m in layer.linears if m.name in formats)
    active = active_parameters(layer)
    sequences = 3.2 * solver.iterations * min(solver.batch_size, tokens["samples"])
    operations = 2 * active * width * sequences
    working = solver.batch_size * kept_bytes(layer, width) + LATENT_BYTES * learned
    steps = {BACKWARD: float(operations), LEARN: float(learned * solver.iterations)}
    cost = replace(cost, work=added(cost.work, steps))
    if device == "cpu":
        seconds = operations / FORWARD_FLOPS + 2e-8 * learned * solver.iterations
        return replace(cost, seconds=cost.seconds + seconds, memory=cost.memory + working)
    seconds = operations / gpu.FORWARD_FLOPS + (gpu.ROUND_SECONDS / 5) * learned * solver.iterations
    return replace(
        cost,
        seconds=cost.seconds + seconds,
        device_memory=max(cost.device_memory, working + layer.bytes),
    )


def kept_bytes(layer: Subgraph, width: int) -> int:
    """What a backward pass through one sequence of `width` tokens needs of the forward pass."""
    share = expert_share(layer)
    entries = sum(
        (m.in_features + m.out_features) * (share if m.expert else 1.0) for m in layer.linears
    )
    return int(6 * width * entries)


def learner_of(blueprint: Blueprint, solver: object) -> AutoRound | None:
    """The solver where it learns, and the model has decoder layers to run."""
    if isinstance(solver, AutoRound) and solver.learns and not blueprint.outlined:
        return solver
    return None
