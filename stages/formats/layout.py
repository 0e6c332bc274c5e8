"""Which layout on disk a number format gets where a config leaves `format` open."""

from __future__ import annotations

from stages.formats.plain import PACKED, is_plain
from stages.formats.qargs import QArgs
from stages.formats.scheme import SchemeGroup

BYTES = "int-quantized"


def layout_of(group: SchemeGroup) -> str:
    """The format's name: the one asked for, or the smallest that a loader has code for.

    Integers below 8 bits by channel or group are packed, whatever the inputs are: vLLM reads 2 to
    7 bits with integer inputs, and 4 bits with FP8 inputs, packed only. compressed-tensors alone
    would store a byte a weight as soon as inputs are quantized. Bytes remain for what no loader
    unpacks: 8 bits with quantized inputs, asymmetric inputs, and scales of a whole tensor or block.
    Raises ValueError for a group without weights.
    """
    weights, inputs = group.weights, group.input_activations
    if weights is None:
        raise ValueError("modules without a weight format have no layout")
    if group.format is not None:
        return group.format
    if weights.type == "float":
        return _floats(weights, inputs)
    rows = weights.strategy in ("channel", "group")
    if inputs is None:
        return PACKED
    return PACKED if weights.num_bits < 8 and rows and inputs.symmetric else BYTES


def goes_straight(scheme: SchemeGroup, shape: tuple[int, ...]) -> bool:
    """Whether a weight of this shape becomes codes and scales, and its inputs need no numbers."""
    weights, inputs = scheme.weights, scheme.input_activations
    if weights is None or (inputs is not None and inputs.dynamic is not True):
        return False
    return is_plain(shape, weights, layout_of(scheme))


def _floats(weights: QArgs, inputs: QArgs | None) -> str:
    microscaled = weights.scale_dtype == "uint8"
    if weights.num_bits == 4:
        return "mxfp4-pack-quantized" if microscaled else "nvfp4-pack-quantized"
    if microscaled:
        return "mxfp8-quantized"
    return "naive-quantized" if inputs is None else "float-quantized"
