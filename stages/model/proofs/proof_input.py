"""Proof of a model's structure as later stages read it, and their need of one.

It is the result of node `prove`, made on a shrunken instance
(:mod:`stages.model.proofs.replay_proof`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from pipeline.errors import UserError
from pipeline.stage import Site
from stages.model.artifact_names import HIDDEN
from stages.model.blueprint import Blueprint

FILE = "proof.json"
PROOF = "proof"
"""The input under which a stage that replays layers takes the result of node `prove`."""


def proof_problem(site: Site) -> UserError | None:
    """The error of a stage that replays layers in a graph that proves nothing; None: it does."""
    if PROOF in site.facts:
        return None
    return UserError(
        f"node {site.name!r} runs the model layer by layer, and nothing in its graph proves that "
        "this model can be run so",
        remedy="add to the graph's nodes `prove: {kind: prove, inputs: {model: patch}}`, and to "
        f"the inputs of {site.name!r} `{PROOF}: prove` (as conf/graph/calibrated.yaml does)",
    )


def boundary_width(site: Site, blueprint: Blueprint) -> int:
    """Values for each token that a layer hands on: those that the proof saw, in all its tensors.

    A small model's proportions stand for those of the model. Until the proof is made, only the
    hidden state is counted.
    """
    facts = site.facts.get(PROOF)
    seen = facts.get("replay") if isinstance(facts, Mapping) else None
    return round(blueprint.hidden_size * (1.0 if seen is None else _hidden_states(seen)))


def _hidden_states(seen: Mapping[str, Any]) -> float:
    """How many times as large as one hidden state [b, T, hidden] all that is handed on is."""
    width: int = seen["hands_on"][HIDDEN][-1]
    values: int = sum(map(prod, seen["hands_on"].values()))
    tokens: int = prod(seen["tokens"])
    return values / (tokens * width)
