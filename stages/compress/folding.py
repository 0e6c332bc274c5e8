"""Fold a factor per channel out of a norm or Linear and into the Linears that read it."""

from __future__ import annotations

import torch
from torch import Tensor

from stages.compress.layer.state import LayerState
from stages.compress.transforms.smoothquant import smoothing_scales
from stages.model.blueprint import Pair


def smooth(layer: LayerState, pair: Pair, strength: float) -> None:
    """Apply SmoothQuant to one pair: divide the source's channels, multiply its readers' columns.

    Nothing happens where calibration saw no token, or where no reader will be quantized.
    """
    readers = [name for name in pair.targets if name in layer.resolved]
    if not readers:
        return
    seen = [absmax for name in readers if (absmax := layer.statistics.absmax(name)) is not None]
    if not seen:
        return
    device = seen[0].device
    weights = (layer.tensors[f"{name}.weight"].to(device) for name in readers)
    inputs = torch.stack(seen).amax(dim=0)
    columns = torch.stack([weight.abs().amax(dim=0).float() for weight in weights]).amax(dim=0)
    s = smoothing_scales(_by_source(inputs, pair), _by_source(columns, pair), strength).cpu()
    if pair.source_kind == "norm":
        s = divide_norm(layer, pair.source, s, pair.norm_offset)
    else:
        divide_rows(layer, pair.source, s)
    wide = _by_target(s, pair)
    for name in pair.targets:
        weight = layer.tensors[f"{name}.weight"]
        layer.rewrite(f"{name}.weight", weight.float() * wide)
    for leader in dict.fromkeys(layer.statistics.leader(name) for name in readers):
        layer.statistics.divide(leader, wide)


def divide_norm(layer: LayerState, norm: str, s: Tensor, offset: float) -> Tensor:
    """Divide a norm's output by `s` [hidden]; returns the divisor that was really reached.

    The norm's weight is stored rounded, so the factor that readers multiply back is taken from
    the rounded weight: the layer then computes what it did, to its dtype's precision. A channel
    whose weight would round to nothing stays as it is.
    """
    name = f"{norm}.weight"
    dtype = layer.tensors[name].dtype
    before = layer.tensors[name].float() + offset
    lost = (before != 0) & ((before / s - offset).to(dtype).float() + offset == 0)
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


def _by_source(channels: Tensor, pair: Pair) -> Tensor:
    """Largest value of the input channels [in] that one output channel of the source feeds."""
    if pair.repeats == 1:
        return channels
    return channels.view(-1, pair.repeats, pair.head_dim).amax(dim=1).flatten()


def _by_target(s: Tensor, pair: Pair) -> Tensor:
    """The factor [in] of every input channel of the targets."""
    if pair.repeats == 1:
        return s
    return s.view(-1, 1, pair.head_dim).expand(-1, pair.repeats, -1).flatten()
