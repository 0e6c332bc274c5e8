"""Storage layouts of number formats: choice of the layout, and tensors of the plain ones."""

from __future__ import annotations

from math import prod

from stages.schemes.protocols import InputFormat, ModuleFormat, WeightFormat, scale_shape

PACKED = "pack-quantized"
BYTES = "int-quantized"
LAYOUTS = ("float-quantized", "naive-quantized", "int-quantized", PACKED)
MAIN = ("weight_packed", "weight")
"""Local names of the tensor with the codes: packed, or a byte each."""
STRATEGIES = ("tensor", "channel", "group", "block")


def layout_of(group: ModuleFormat) -> str:
    """The name of a group's layout: the requested one, or the smallest that a loader can read.

    Integers below 8 bits by channel or group are packed, whatever the inputs are: vLLM reads 2 to
    7 bits with integer inputs, and 4 bits with FP8 inputs, packed only. compressed-tensors itself
    would store a byte per weight as soon as inputs are quantized. Bytes remain for what no loader
    unpacks: 8 bits with quantized inputs, asymmetric inputs, and scales per tensor or block.
    Raises ValueError for a group without weights.
    """
    weights, inputs = group.weights, group.input_activations
    if weights is None:
        raise ValueError("modules without a weight format have no layout")
    if group.format is not None:
        return str(group.format)
    if weights.type == "float":
        return _floats(weights, inputs)
    rows = weights.strategy in ("channel", "group")
    if inputs is None:
        return PACKED
    return PACKED if weights.num_bits < 8 and rows and inputs.symmetric else BYTES


def plainly_scaled(args: WeightFormat) -> bool:
    """Whether a format is symmetric integers or E4M3, with scales in the model's dtype alone."""
    known = args.type == "int" or args.num_bits == 8
    return bool(args.symmetric) and args.scale_dtype is None and known


def is_plain(shape: tuple[int, ...], args: WeightFormat, layout: str) -> bool:
    """Whether a weight of this shape is stored as codes and scales and nothing else."""
    tiled = args.strategy in STRATEGIES
    whole = args.strategy != "group" or shape[1] % (args.group_size or 1) == 0
    return plainly_scaled(args) and tiled and whole and prod(shape) > 0 and layout in LAYOUTS


def codes_part(layout: str) -> str:
    """The local name of the tensor with the codes."""
    return MAIN[0] if layout == PACKED else MAIN[1]


def words_in(columns: int, num_bits: int) -> int:
    """Number of int32 words that hold the packed codes of a row."""
    return -(-columns * num_bits // 32)


def plain_parts(
    shape: tuple[int, ...], args: WeightFormat, layout: str, dtype: str
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Local name -> (shape, dtype) of the tensors of a weight in a plain format.

    `dtype` is the model's, as safetensors names it.
    """
    scale = {"weight_scale": (scale_shape(args, *shape), dtype)}
    if layout != PACKED:
        return {codes_part(layout): (shape, "I8" if args.type == "int" else "F8_E4M3"), **scale}
    words = (shape[0], words_in(shape[1], args.num_bits))
    return {codes_part(layout): (words, "I32"), "weight_shape": ((2,), "I64"), **scale}


def _floats(weights: WeightFormat, inputs: InputFormat | None) -> str:
    microscaled = weights.scale_dtype == "uint8"
    if weights.num_bits == 4:
        return "mxfp4-pack-quantized" if microscaled else "nvfp4-pack-quantized"
    if microscaled:
        return "mxfp6-pack-quantized" if weights.num_bits == 6 else "mxfp8-quantized"
    return "naive-quantized" if inputs is None else "float-quantized"
