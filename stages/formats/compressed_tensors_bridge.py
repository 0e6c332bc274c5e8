"""Schemes as compressed-tensors' own objects, and back."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from pydantic import ValidationError

from pipeline.errors import UserError
from stages.formats.quantization_config import MIXED
from stages.schemes.layouts import layout_of
from stages.schemes.protocols import ModuleFormat
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeGroup


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


UNREADABLE = (
    *(ValidationError, ValueError, NotImplementedError, RecursionError),
    *(re.error, OverflowError),  # of expressions
    *(TypeError, KeyError, AttributeError),  # its validators trust types where they should not
)
"""What compressed-tensors raises for configs that are none."""


def parse(config: Mapping[str, Any]) -> QuantizationConfig:
    """compressed-tensors' reading of a `quantization_config`; UserError if it is not one."""
    try:
        parsed = QuantizationConfig.model_validate(dict(config))
        for pattern in (
            *(parsed.ignore or ()),
            *(t for s in schemes_in(parsed) for t in s.targets),
        ):
            if pattern.startswith("re:"):
                re.compile(pattern[3:])
        parsed.model_dump_json()  # fails where a text is none: half of a surrogate pair
    except UNREADABLE as error:
        raise UserError(f"quantization_config is not a valid one: {error}") from error
    for name, scheme in parsed.config_groups.items():
        if isinstance(scheme, QuantizationScheme) and scheme.format is None:
            fixed = {"format": parsed.format if parsed.format != MIXED else None}
            parsed.config_groups[name] = scheme.model_copy(update=fixed)
    return parsed


def schemes_in(config: QuantizationConfig) -> list[QuantizationScheme]:
    """Its groups; presets by name were expanded when it was parsed."""
    groups = config.config_groups.values()
    return [group for group in groups if isinstance(group, QuantizationScheme)]
