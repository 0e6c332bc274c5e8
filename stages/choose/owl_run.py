"""Run `owl`: the share of outliers among the weights of every decoder layer.

The score of a weight is |W_ij| |X_j|, with |X_j| the norm of input channel j over all tokens. The
layer's outlier distribution (LOD) of arXiv:2310.05175, section 3.2, is the share of scores above M
times their mean over the layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pipeline.errors import StageFailed
from pipeline.stage import Artifact, Task
from stages.choose.owl import OwlConfig
from stages.model.artifact_names import OUTLIERS
from stages.model.blueprint import Blueprint, Subgraph
from stages.quantized.open import open_model
from stages.weights import WeightSource
from stages.weights.tensor_content import reader


def run(config: OwlConfig, task: Task) -> None:
    """Write outliers.json: layer -> share of outliers."""
    config.numerics.apply()
    device, m = config.numerics.device, config.owl_m
    if m is None:
        raise ValueError("no modifier shares out zeros by outliers")
    blueprint = Blueprint.load(task.inputs["model"])
    source = open_model(task.inputs["source"], blueprint)
    found: dict[str, float] = {}
    for index, layer in enumerate(blueprint.layers):
        task.progress(index / len(blueprint.layers), layer.name)
        statistics = task.inputs[f"statistics/{index}"]
        found[layer.name] = outlier_ratio(list(scores(layer, source, statistics, device)), m)
        if not found[layer.name] >= 0:
            raise StageFailed(
                f"the weights of {layer.name}, or what calibration saw of its inputs, are not "
                "finite, or nothing was seen",
                remedy="check the model's weights; leave out sparsity_profile for one share of all",
            )
    task.outputs["out"].write_json(OUTLIERS, {"owl_m": m, "layers": found})


def scores(
    layer: Subgraph, source: WeightSource, statistics: Artifact, device: str
) -> Iterable[Tensor]:
    """|W_ij| |X_j|, float32 [out, in], of every Linear of a layer that saw tokens."""
    groups, squares = statistics.meta["groups"], reader(statistics, "squares.safetensors")
    for linear in layer.linears:
        leader = groups.get(linear.name)
        if leader is None:
            continue
        stored = layer.tensors[f"{linear.name}.weight"]
        weight = source.read([stored])[stored].to(device).float()
        norms = squares.read([leader], device=device)[leader].sqrt()
        yield weight.abs() * norms


def outlier_ratio(scores: Sequence[Tensor], m: float) -> float:
    """The share of entries above `m` times the mean of all; NaN where there are none."""
    count = sum(score.numel() for score in scores)
    mean = sum(float(score.double().sum()) for score in scores) / count if count else torch.nan
    above = sum(int((score > m * mean).sum()) for score in scores)
    return above / count if mean >= 0 and mean < torch.inf else torch.nan
