"""Proof of a model's structure as later stages read it, and their need of one.

It is the result of node `prove`, made on a shrunken instance
(:mod:`stages.model.proofs.replay_proof`).
"""

from __future__ import annotations

from pipeline.errors import UserError
from pipeline.stage import Site

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
