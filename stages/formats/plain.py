"""Formats in which a weight is codes and a scale in the model's dtype, and nothing else."""

from __future__ import annotations

from math import prod

from stages.formats.sharing import WeightFormat, scale_shape

PACKED = "pack-quantized"
LAYOUTS = ("float-quantized", "naive-quantized", "int-quantized", PACKED)
MAIN = ("weight_packed", "weight")
"""Local names of the tensor with the codes: packed, or a byte each."""
STRATEGIES = ("tensor", "channel", "group", "block")


def plainly_scaled(args: WeightFormat) -> bool:
    """Symmetric integers or E4M3, and nothing to their scales but the model's dtype."""
    known = args.type == "int" or args.num_bits == 8
    return bool(args.symmetric) and args.scale_dtype is None and known


def is_plain(shape: tuple[int, ...], args: WeightFormat, layout: str) -> bool:
    """Whether a weight of this shape is nothing but codes and scales in this format."""
    tiled = args.strategy in STRATEGIES
    whole = args.strategy != "group" or shape[1] % (args.group_size or 1) == 0
    return plainly_scaled(args) and tiled and whole and prod(shape) > 0 and layout in LAYOUTS


def words_in(columns: int, num_bits: int) -> int:
    """How many int32 words the packed codes of a row take."""
    return -(-columns * num_bits // 32)


def codes_part(layout: str) -> str:
    """The local name of the tensor with the codes."""
    return MAIN[0] if layout == PACKED else MAIN[1]


def plain_parts(
    shape: tuple[int, ...], args: WeightFormat, layout: str, dtype: str
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Local name -> (shape, dtype) of what is stored for a weight of a plain format.

    `dtype` is the model's, as safetensors names it.
    """
    scale = {"weight_scale": (scale_shape(args, *shape), dtype)}
    if layout != PACKED:
        return {codes_part(layout): (shape, "I8" if args.type == "int" else "F8_E4M3"), **scale}
    words = (shape[0], words_in(shape[1], args.num_bits))
    return {codes_part(layout): (words, "I32"), "weight_shape": ((2,), "I64"), **scale}
