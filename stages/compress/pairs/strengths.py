"""SmoothQuant with the strength that costs a pair's readers least."""

from __future__ import annotations

from stages.compress.folding import channel_spread
from stages.compress.layer.state import LayerState
from stages.compress.pairs.search import Choice, Rounder, fold_best
from stages.compress.transforms.candidate_loss import Observe
from stages.compress.transforms.smoothquant import smoothing_scales
from stages.model.blueprint import Pair


def smooth_best(layer: LayerState, pair: Pair, steps: int, observe: Observe) -> None:
    """Apply SmoothQuant to one pair with the best of the strengths 0, 1 / steps, ... 1.

    Nothing happens where calibration saw no token, or where no reader will be quantized.
    """
    spread = channel_spread(layer, pair)
    if spread is None:
        return
    choices = [
        Choice(
            s=smoothing_scales(*spread, step / steps),
            options={"smoothing_strength": step / steps},
        )
        for step in range(steps + 1)
    ]
    fold_best(
        layer, pair, choices, Rounder(observe=observe, importance=False), modifier="smoothquant"
    )
