"""`quantization_config` as compressed-tensors reads it, whoever wrote it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from pydantic import ValidationError

from pipeline.errors import UserError
from stages.formats.config import MIXED

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
