"""Schemes as compressed-tensors' own objects."""

from __future__ import annotations

import dataclasses

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from stages.formats.layout import layout_of
from stages.formats.protocols import ModuleFormat
from stages.formats.qargs import QArgs
from stages.formats.scheme import SchemeGroup


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
    return QuantizationScheme(
        targets=list(group.targets),
        weights=None if group.weights is None else to_args(group.weights),
        input_activations=None if inputs is None else to_args(inputs),
        format=None if group.weights is None else layout_of(group),
    )


def as_compressed_tensors(scheme: ModuleFormat) -> QuantizationScheme:
    """The compressed-tensors form of either: of a group of ours, or itself."""
    if isinstance(scheme, SchemeGroup):
        return to_compressed_tensors(scheme)
    if not isinstance(scheme, QuantizationScheme):
        raise TypeError(f"{type(scheme).__name__} is no format of a module")
    return scheme
