"""Schemes as compressed-tensors' own objects."""

from __future__ import annotations

import dataclasses

import torch
from compressed_tensors.compressors.format import infer_module_format
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from stages.formats.scheme import QArgs, SchemeGroup


def to_args(args: QArgs) -> QuantizationArgs:
    """The compressed-tensors form of `args`."""
    values = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(args)
        if getattr(args, field.name) is not None
    }
    for name in ("scale_dtype", "zp_dtype"):
        if name in values:
            values[name] = getattr(torch, values[name])
    return QuantizationArgs(**values)


def to_compressed_tensors(group: SchemeGroup) -> QuantizationScheme:
    """The compressed-tensors form of a group, its format always filled in."""
    inputs = group.input_activations
    scheme = QuantizationScheme(
        targets=list(group.targets),
        weights=None if group.weights is None else to_args(group.weights),
        input_activations=None if inputs is None else to_args(inputs),
    )
    return scheme.model_copy(update={"format": format_of(torch.nn.Linear, scheme, group.format)})


def format_of(
    module: type[torch.nn.Module], scheme: QuantizationScheme, wanted: str | None = None
) -> str:
    """The name of the layout of `module`'s tensors: `wanted`, or what compressed-tensors infers."""
    return wanted if wanted is not None else str(infer_module_format(module, scheme).value)
