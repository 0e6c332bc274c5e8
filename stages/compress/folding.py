"""Fold a factor per channel out of a norm or Linear and into the Linears that read it."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.layer.state import LayerState
from stages.compress.transforms.log_equalization import log_equalization_scales
from stages.compress.transforms.smoothquant import smoothing_scales
from stages.model.blueprint import Pair


def smooth(layer: LayerState, pair: Pair, strength: float) -> None:
    """Apply SmoothQuant to one pair: divide the source's channels, multiply its readers' columns.

    Nothing happens where calibration saw no token, or where no reader will be quantized.
    """
    spread = channel_spread(layer, pair)
    if spread is not None:
        fold(layer, pair, smoothing_scales(*spread, strength))


def equalize(layer: LayerState, pair: Pair) -> None:
    """Apply logarithmic equalization to one pair; nothing happens where :func:`smooth` does not."""
    inputs = largest_inputs(layer, pair)
    if inputs is not None:
        fold(layer, pair, log_equalization_scales(inputs))


def channel_spread(layer: LayerState, pair: Pair) -> tuple[Tensor, Tensor] | None:
    """The largest magnitudes of inputs and of weight columns by channel of the source: [out], each.

    None where calibration saw no token, or where no reader will be quantized.
    """
    inputs = largest_inputs(layer, pair)
    if inputs is None:
        return None
    weights = (layer.tensors[f"{name}.weight"].to(inputs.device) for name in readers(layer, pair))
    columns = torch.stack([weight.abs().amax(dim=0).float() for weight in weights]).amax(dim=0)
    return inputs, by_source(columns, pair).amax(dim=0)


def largest_inputs(layer: LayerState, pair: Pair) -> Tensor | None:
    """The largest magnitude of the inputs by channel of the source, [out]; None: see above."""
    known = (layer.statistics.absmax(name) for name in readers(layer, pair))
    seen = [absmax for absmax in known if absmax is not None]
    return by_source(torch.stack(seen).amax(dim=0), pair).amax(dim=0) if seen else None


def readers(layer: LayerState, pair: Pair) -> list[str]:
    """The targets of a pair that will be quantized."""
    return [name for name in pair.targets if name in layer.resolved]


def fold(layer: LayerState, pair: Pair, s: Tensor) -> Tensor:
    """Divide the source's output by `s` [out], multiply its readers' columns, tell statistics.

    Returns the factor of the readers' input channels that was really reached, [in].
    """
    s = s.cpu()
    if pair.source_kind == "norm":
        s = divide_norm(layer, pair.source, s, pair.norm_offset)
    else:
        divide_rows(layer, pair.source, s)
    wide = by_target(s, pair)
    for name in pair.targets:
        weight = layer.tensors[f"{name}.weight"]
        layer.rewrite(f"{name}.weight", weight.float() * wide)
    for leader in dict.fromkeys(layer.statistics.leader(name) for name in readers(layer, pair)):
        layer.statistics.divide(leader, wide)
    return wide


def divide_norm(layer: LayerState, norm: str, s: Tensor, offset: float) -> Tensor:
    """Divide a norm's output by `s` [hidden]; returns the divisor that was really reached.

    The norm's weight is stored rounded, so the factor that readers multiply back is taken from
    the rounded weight: the layer then computes what it did, to its dtype's precision. A channel
    whose weight would round to nothing, or overflow, stays as it is.
    """
    name = f"{norm}.weight"
    dtype = layer.tensors[name].dtype
    before = layer.tensors[name].float() + offset
    there = (before / s - offset).to(dtype).float() + offset
    lost = (before != 0) & ((there == 0) | ~torch.isfinite(there))
    s = torch.where(lost, 1.0, s)
    layer.rewrite(name, before / s - offset)
    after = layer.tensors[name].float() + offset
    reached = torch.where(after != 0, before / torch.where(after != 0, after, 1.0), s)
    _divide_bias(layer, norm, reached)
    return reached


def divide_rows(layer: LayerState, linear: str, s: Tensor) -> None:
    """Divide the outputs of a Linear by `s` [out]."""
    weight = layer.tensors[f"{linear}.weight"]
    layer.rewrite(f"{linear}.weight", weight.float() / s[:, None])
    _divide_bias(layer, linear, s)


def _divide_bias(layer: LayerState, module: str, s: Tensor) -> None:
    name = f"{module}.bias"
    if name in layer.tensors:
        bias = layer.tensors[name]
        layer.tensors[name] = (bias.float() / s).to(bias.dtype)
        layer.changed.add(name)


def by_source(channels: Tensor, pair: Pair) -> Tensor:
    """Values of input channels [in] by the output channel of the source that feeds them.

    [repeats, out]: reduce the first dimension by what joins values of the kind.
    """
    if pair.repeats == 1:
        return channels[None]
    return channels.view(-1, pair.repeats, pair.head_dim).transpose(0, 1).flatten(1)


def by_target(s: Tensor, pair: Pair) -> Tensor:
    """The factor [in] of every input channel of the targets, from those of the source [out]."""
    if pair.repeats == 1:
        return s
    return s.view(-1, 1, pair.head_dim).expand(-1, pair.repeats, -1).flatten()
