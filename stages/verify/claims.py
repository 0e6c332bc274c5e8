"""What the `quantization_config` of a checkpoint claims, as compressed-tensors or we read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.formats.quantization_config import groups_read
from stages.schemes.protocols import ModuleFormat


@dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """The method and status that it names, the formats of modules, and which stay dense."""

    method: object
    status: object
    schemes: Sequence[ModuleFormat]
    ignore: Sequence[str]


def claims_of(config: Mapping[str, Any], own: bool) -> Claims:
    """Read by compressed-tensors, or with `own` as the config that we write; else UserError."""
    if own:
        return Claims(
            method=config.get("quant_method"),
            status=config.get("quantization_status"),
            schemes=groups_read(config),
            ignore=config.get("ignore") or (),
        )
    from stages.formats.compressed_tensors_bridge import parse, schemes_in

    parsed = parse(config)
    return Claims(
        method=parsed.quant_method,
        status=parsed.quantization_status.value,
        schemes=schemes_in(parsed),
        ignore=parsed.ignore or (),
    )
