"""A model whose weights all fit into memory, run as a whole: original or compressed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stages.eval.evaluated_model import Candidate
from stages.fake_quant.activations import simulated_inputs
from stages.fake_quant.attention_states import simulated_states
from stages.model.layer_tensors import all_tensors
from stages.model.skeleton import Skeleton


@contextmanager
def running(bones: Skeleton, candidate: Candidate) -> Iterator[None]:
    """Context in which `bones.model` has all weights of a candidate, and its fake quantization."""
    layers = range(len(bones.layers))
    with (
        bones.materialized(all_tensors(candidate.blueprint, candidate.source)),
        simulated_inputs(bones.model, candidate.rules),
        simulated_states(bones, layers, candidate.states),
    ):
        yield
