"""Planning of GPTQ aimed at the original's outputs: what a graph lacks, and what it costs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Estimate
from stages.compress.config import CompressConfig
from stages.compress.learning.learning_plan import kept_bytes
from stages.compress.modifiers.base import Solver
from stages.compute import gpu_estimates as gpu
from stages.compute.estimates import FORWARD_FLOPS
from stages.compute.work import FORWARD, added
from stages.model.artifact_names import ACTIVATIONS
from stages.model.blueprint import Blueprint, Subgraph
from stages.model.proofs.proof_input import PROOF
from stages.model.routed_work import active_parameters

ORIGINAL = "original"
"""The input under which `compress` takes what the original model hands to the layer."""
INPUTS = {
    ACTIVATIONS: "propagate@previous",
    ORIGINAL: "reference@previous",
    "tokens": "tokens",
    PROOF: "prove",
}
SEEN = ("tokens", PROOF)
"""Inputs of `compress` of which a plan knows whether they are there."""
FORWARDS = 6.0
"""What running a layer in both models takes, in forward passes of it: those of llama's four groups
end early, two and a fraction for each model; sums over tokens take what is left."""


def aim_problem(solver: Solver, facts: Mapping[str, Any], blueprint: Blueprint) -> UserError | None:
    """Why a graph of these facts about the inputs of `compress` cannot run layers; None: it can."""
    missing = [name for name in SEEN if name not in facts]
    if not missing and not blueprint.outlined:
        return None
    why = blueprint.outlined or f"nothing gives compress its {', '.join(missing)}"
    wiring = ", ".join(f"{name}: {node}" for name, node in INPUTS.items())
    return UserError(
        f"modifier {solver.kind!r} runs decoder layers of the original and of the compressed model "
        f"side by side, but {why}",
        remedy=f"say graph=calibrated, or give node compress the inputs {wiring}, as "
        "conf/graph/calibrated.yaml does; modifier=gptq runs no layer",
    )


def has_routed(blueprint: Blueprint, formats: Collection[str]) -> bool:
    """Whether a Linear of a routed expert is quantized."""
    return any(m.expert and m.name in formats for layer in blueprint.layers for m in layer.linears)


def aim_notes(
    config: CompressConfig, blueprint: Blueprint, formats: Collection[str]
) -> Iterator[str]:
    """What a plan says where some of a layer are not aimed."""
    if config.aimer is not None and has_routed(blueprint, formats):
        yield (
            f"{config.aimer.kind} solves routed experts by plain GPTQ: the two models need not "
            "send a token to the same experts"
        )


def aiming_cost(
    cost: Estimate, layer: Subgraph, formats: Collection[str], tokens: Any, *, device: str
) -> Estimate:
    """The `cost` of solving a layer with that of running it; unchanged while tokens are unknown.

    formats: names of the modules that are quantized.
    """
    if not isinstance(tokens, dict):
        return cost
    width, samples = tokens["sequence_length"], tokens["samples"]
    operations = FORWARDS * 2 * active_parameters(layer) * width * samples
    own = [m for m in layer.linears if m.name in formats and not m.expert]
    widest = max((m.in_features for m in own), default=0)
    crosses = 4 * max((m.in_features * m.out_features for m in own), default=0)
    working = 2 * kept_bytes(layer, width) + 12 * widest * widest + 4 * crosses
    working += 8 * sum(m.in_features * m.out_features for m in own)
    cost = replace(cost, work=added(cost.work, {FORWARD: float(operations)}))
    if device == "cpu":
        seconds = operations / FORWARD_FLOPS
        return replace(cost, seconds=cost.seconds + seconds, memory=cost.memory + working)
    return replace(
        cost,
        seconds=cost.seconds + operations / gpu.FORWARD_FLOPS,
        device_memory=max(cost.device_memory, working + layer.bytes),
    )
