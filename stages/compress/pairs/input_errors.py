"""Rounding errors of the inputs of a Linear under candidate factors, on a sample of its inputs."""

from __future__ import annotations

from contextlib import nullcontext

from torch import Tensor, nn

from stages.compress.layer.state import LayerState
from stages.compress.shared_scales import input_params
from stages.compress.transforms.candidate_loss import InputErrors
from stages.fake_quant.activations import quantize_input
from stages.formats.compressed_tensors_bridge import to_args
from stages.formats.input_params import InputRule

_MODULE = nn.Identity()  # asked for by compressed-tensors, which reads nothing of it


def input_errors(layer: LayerState, group: tuple[str, ...], s: Tensor | None) -> InputErrors | None:
    """The rounding errors of inputs divided by `s` [in] (None: as they are), multiplied back.

    `group` are modules with one input and format, whose calibrated scales are those of the divided
    inputs. None where the format leaves inputs as they are.
    """
    name = group[0]
    args = layer.resolved[name].scheme.input_activations
    x = None if args is None else layer.statistics.rows(name)
    if args is None or x is None:
        return None
    divided = nullcontext() if s is None else layer.statistics.divided(name, s)
    with divided:
        params = input_params(layer.statistics, group, args, layer.dtype)
    rule = InputRule(args=to_args(args), params=params)
    scaled = x if s is None else x / s
    # rows are tokens of one sequence: without one, a scale by token would be one for all of them
    rounded = quantize_input(scaled[None], rule, _MODULE)[0].float()
    errors = x - rounded if s is None else x - rounded * s
    return InputErrors(rows=x, errors=errors, weight=layer.statistics.tokens(name) / len(x))
