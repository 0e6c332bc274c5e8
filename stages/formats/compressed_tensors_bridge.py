"""Convert schemes and quantization args to compressed-tensors' classes, and parse its configs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme
from pydantic import ValidationError

from pipeline.errors import UserError
from stages.formats.quantization_config import MIXED
from stages.schemes.layouts import layout_of
from stages.schemes.patterns import check_patterns
from stages.schemes.protocols import ModuleFormat
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import MOST_GROUPS, SchemeGroup

UNREADABLE = (
    *(ValidationError, ValueError, NotImplementedError, RecursionError),
    OverflowError,
    *(TypeError, KeyError, AttributeError),  # its validators do not check all types
)
"""Exceptions that compressed-tensors raises for invalid configs."""


def to_args(args: QArgs) -> QuantizationArgs:
    """Quantization args as compressed-tensors' class."""
    values = {
        field.name: getattr(args, field.name)
        for field in dataclasses.fields(args)
        if field.name != "scale_rule" and getattr(args, field.name) is not None
    }
    for name in ("scale_dtype", "zp_dtype"):
        if name in values:
            values[name] = getattr(torch, values[name])
    return QuantizationArgs(**values)


def to_compressed_tensors(group: SchemeGroup) -> QuantizationScheme:
    """A group as compressed-tensors' QuantizationScheme, its format always filled in."""
    inputs = group.input_activations
    return QuantizationScheme(
        targets=list(group.targets),
        weights=None if group.weights is None else to_args(group.weights),
        input_activations=None if inputs is None else to_args(inputs),
        format=None if group.weights is None else layout_of(group),
    )


def as_compressed_tensors(scheme: ModuleFormat) -> QuantizationScheme:
    """A scheme of either kind as compressed-tensors' QuantizationScheme."""
    if isinstance(scheme, SchemeGroup):
        return to_compressed_tensors(scheme)
    if not isinstance(scheme, QuantizationScheme):
        raise TypeError(f"{type(scheme).__name__} is no format of a module")
    return scheme


def parse(config: Mapping[str, Any]) -> QuantizationConfig:
    """Parse a `quantization_config` with compressed-tensors; UserError if it is invalid."""
    groups = config.get("config_groups")
    if isinstance(groups, Mapping) and len(groups) > MOST_GROUPS:
        raise UserError(
            f"quantization_config has {len(groups)} groups: no checkpoint has over {MOST_GROUPS}"
        )
    try:
        parsed = QuantizationConfig.model_validate(dict(config))
        targets = [target for scheme in schemes_in(parsed) for target in scheme.targets]
        check_patterns("quantization_config", [*(parsed.ignore or ()), *targets])
        parsed.model_dump_json()  # fails for invalid Unicode: half of a surrogate pair
    except UNREADABLE as error:
        raise UserError(f"quantization_config is not a valid one: {error}") from error
    for name, scheme in parsed.config_groups.items():
        if isinstance(scheme, QuantizationScheme) and scheme.format is None:
            inherited = {"format": parsed.format if parsed.format != MIXED else None}
            parsed.config_groups[name] = scheme.model_copy(update=inherited)
    return parsed


def schemes_in(config: QuantizationConfig) -> list[QuantizationScheme]:
    """The groups of a config; presets named there were expanded when it was parsed."""
    groups = config.config_groups.values()
    return [group for group in groups if isinstance(group, QuantizationScheme)]
