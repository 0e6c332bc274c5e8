"""Context in which the layer that is compressed can be run, as its transforms left it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from stages.compress.layer.state import LayerState
from stages.model.layer_tensors import outside_tensors
from stages.model.replay import stem_names
from stages.model.skeleton import Skeleton
from stages.weights import WeightSource


def materialized_layer(
    skeleton: Skeleton, index: int, layer: LayerState, source: WeightSource
) -> AbstractContextManager[object]:
    """Context with the layer's tensors as `layer` holds them, and those before all layers.

    They are put into the skeleton as they are: who changes one in place has to copy it before.
    """
    tensors = {name: layer.peek(name) for name in layer.subgraph.tensors}
    stem = stem_names(skeleton, index)
    return skeleton.materialized(tensors | outside_tensors(skeleton.blueprint, stem, source))
