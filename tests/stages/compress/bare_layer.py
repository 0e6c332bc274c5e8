"""The state of a layer before anything is done to it: no statistics, no formats, float32."""

from __future__ import annotations

import torch

from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.model.blueprint import Subgraph
from tests.stages.model.tiny import Tiny


def bare_layer(model: Tiny, subgraph: Subgraph) -> LayerState:
    return LayerState(
        subgraph=subgraph,
        tensors=LazyTensors(subgraph.tensors, model.source),
        statistics=Statistics({}, device="cpu"),
        resolved={},
        dtype=torch.float32,
    )
