"""AWQ for one smoothing pair: means of its readers' inputs and weights, and the best ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from stages.compress.folding import by_source, readers
from stages.compress.layer.state import LayerState
from stages.compress.pairs.search import Choice, Rounder, failed, fold_best
from stages.compress.shared_scales import grids_of
from stages.compress.solvers.numerical_error import NumericalError
from stages.compress.transforms.awq import awq_scales, ratios, weight_magnitudes
from stages.model.blueprint import Pair


def apply_awq(
    layer: LayerState, pair: Pair, *, n_grid: int, duo: Sequence[bool], rounder: Rounder
) -> None:
    """Fold the best of AWQ's factors into a pair; see :func:`fold_best`.

    Nothing happens where calibration saw no token, or where no reader will be quantized.
    """
    means = _mean_inputs(layer, pair)
    if means is None:
        return
    try:
        choices = list(_choices(layer, pair, means, n_grid, duo))
    except NumericalError as trouble:
        raise failed("awq", pair, trouble) from trouble
    fold_best(layer, pair, choices, rounder, modifier="awq")


def _choices(
    layer: LayerState, pair: Pair, means: Tensor, n_grid: int, duo: Sequence[bool]
) -> Iterator[Choice]:
    weights = _mean_weights(layer, pair, means.device)
    for duo_scaling in duo:
        for ratio in ratios(n_grid):
            if ratio == 0 and not duo_scaling:
                continue  # the pair stays as it is, which is tried anyway
            s = awq_scales(means, weights, ratio, duo_scaling=duo_scaling)
            yield Choice(s=s, options={"ratio": ratio, "duo_scaling": duo_scaling})


def _mean_inputs(layer: LayerState, pair: Pair) -> Tensor | None:
    """Mean magnitude of what the source's channels feed, over all tokens: [out]."""
    sums, tokens = list[Tensor](), 0
    for leader in dict.fromkeys(layer.statistics.leader(n) for n in readers(layer, pair)):
        mean = layer.statistics.absmean(leader)
        if mean is None:
            continue
        sums.append(mean.double() * layer.statistics.tokens(leader))
        tokens += layer.statistics.tokens(leader)
    return by_source(torch.stack(sums).sum(dim=0) / tokens, pair).mean(dim=0) if sums else None


def _mean_weights(layer: LayerState, pair: Pair, device: torch.device) -> Tensor:
    """Mean of |w| over the largest that shares its scale, over all rows that are read: [out]."""
    grids, sums, rows = grids_of(layer), list[Tensor](), 0
    for name in readers(layer, pair):
        weight = layer.tensors[f"{name}.weight"].to(device)
        sums.append(weight_magnitudes(weight, grids[name].width(weight.shape[1])))
        rows += len(weight)
    return by_source(torch.stack(sums).sum(dim=0) / rows, pair).mean(dim=0)
