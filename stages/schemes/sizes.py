"""Bytes of a compressed Linear from its shape and scheme; short names of formats for reports."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from stages.model.blueprint import DTYPE_BYTES, LinearSpec, Subgraph
from stages.schemes.layouts import PACKED, layout_of
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup


def linear_bytes(linear: LinearSpec, scheme: SchemeGroup, dtype: str) -> int:
    """Bytes of a compressed Linear's tensors, without its bias; `dtype` is the model's."""
    weights = scheme.weights
    rows, columns, plain = linear.out_features, linear.in_features, DTYPE_BYTES[dtype]
    if weights is None:
        return rows * columns * plain
    scales = _scales(weights, rows, columns)
    total = _input_bytes(scheme, plain)
    if weights.type == "float":
        total += rows * columns * weights.num_bits // 8
        total += 4 if weights.strategy == "tensor_group" else 0
        return total + scales * (1 if weights.scale_dtype else plain)
    total += scales * plain
    if layout_of(scheme) != PACKED:
        return total + rows * columns + (0 if weights.symmetric else scales)
    total += 4 * rows * ceil(columns * weights.num_bits / 32) + 16  # and int64 weight_shape [2]
    if weights.symmetric:
        return total
    if weights.strategy not in ("channel", "group"):
        return total + scales  # zero points stay int8
    return total + 4 * ceil(rows * weights.num_bits / 32) * (scales // rows)


def layer_bytes(layer: Subgraph, formats: Mapping[str, SchemeGroup], dtype: str) -> int:
    """Bytes of a decoder layer whose Linears have these formats; `dtype` is the model's."""
    size = layer.bytes
    for linear in layer.linears:
        if linear.name in formats:
            elements = linear.in_features * linear.out_features
            plain = layer.bytes * elements // max(1, layer.parameters)
            size += linear_bytes(linear, formats[linear.name], dtype) - plain
    return size


def label(scheme: SchemeGroup) -> str:
    """A short name of a format: "W4A16 g64", "FP8 channel", "NVFP4"."""
    weights, inputs = scheme.weights, scheme.input_activations
    if weights is None:
        return "dense"
    stem, act = _stem(weights), "16" if inputs is None else _stem(inputs)
    if weights.type == "int":
        name = f"W{stem}A{act}"
    else:
        name = stem if inputs is not None and act == stem else f"{stem}A{act}"
    if inputs is not None and inputs.dynamic is True and name == "FP8":
        name = "FP8 dynamic"
    if weights.type == "int" and not weights.symmetric:
        name += " asym"
    if weights.type == "float" and weights.strategy in ("group", "tensor_group"):
        return name
    if weights.group_size is not None:
        return f"{name} g{weights.group_size}"
    return f"{name} {weights.strategy}"


def _stem(args: QArgs) -> str:
    if args.type == "int":
        return str(args.num_bits)
    if args.strategy == "tensor_group":
        return f"NVFP{args.num_bits}"
    return f"{'MX' if args.scale_dtype == 'uint8' else ''}FP{args.num_bits}"


def _scales(weights: QArgs, rows: int, columns: int) -> int:
    if weights.strategy == "tensor":
        return 1
    if weights.block_structure is not None:
        height, width = weights.block_structure
        return ceil(rows / height) * ceil(columns / width)
    return rows if weights.group_size is None else rows * (columns // weights.group_size)


def _input_bytes(scheme: SchemeGroup, plain: int) -> int:
    inputs = scheme.input_activations
    if inputs is None or inputs.dynamic is True:
        return 0
    if inputs.dynamic == "local":
        return 4
    return plain if inputs.symmetric else plain + 1
