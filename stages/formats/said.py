"""Formats as `quantization_config` says them, written and read without compressed-tensors.

It takes as long to import as a small model takes to be compressed. What is written is what its
own models say of themselves; what it reads more leniently is for `stages.formats.parsing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import UserError
from stages.formats.qargs import QArgs
from stages.formats.scheme import SchemeGroup

DTYPES = ("scale_dtype", "zp_dtype")
TORCH = "torch."


def args_said(args: QArgs) -> dict[str, Any]:
    """How one tensor is quantized, with every field that QuantizationArgs has."""
    return {
        "num_bits": args.num_bits,
        "type": args.type,
        "symmetric": args.symmetric,
        "group_size": args.group_size,
        "strategy": args.strategy,
        "block_structure": args.block_structure,
        "dynamic": args.dynamic,
        "actorder": None,
        "scale_dtype": None if args.scale_dtype is None else TORCH + args.scale_dtype,
        "zp_dtype": None if args.symmetric else TORCH + (args.zp_dtype or "int8"),
        "observer": args.observer,
        "observer_kwargs": args.observer_kwargs or {},
    }


def group_said(
    weights: QArgs | None, inputs: QArgs | None, layout: str | None, targets: Sequence[str]
) -> dict[str, Any]:
    """A group of modules, with every field that QuantizationScheme has."""
    return {
        "targets": list(targets),
        "weights": None if weights is None else args_said(weights),
        "input_activations": None if inputs is None else args_said(inputs),
        "output_activations": None,
        "format": layout,
    }


def groups_read(config: Mapping[str, Any]) -> list[SchemeGroup]:
    """The formats in a `quantization_config` of ours; UserError for what is no such thing."""
    try:
        groups = list(config["config_groups"].values())
        return [_group(group) for group in groups if group["weights"] is not None]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"quantization_config is not a valid one: {type(error).__name__}: {error}"
        ) from error


def _group(said: Mapping[str, Any]) -> SchemeGroup:
    inputs = said["input_activations"]
    return SchemeGroup(
        targets=list(said["targets"]),
        weights=_args(said["weights"]),
        input_activations=None if inputs is None else _args(inputs),
        format=said["format"],
    )


def _args(said: Mapping[str, Any]) -> QArgs:
    values = {name: value for name, value in said.items() if name != "actorder"}
    for name in DTYPES:
        if values[name] is not None:
            values[name] = values[name].removeprefix(TORCH)
    values["observer_kwargs"] = values["observer_kwargs"] or None
    return QArgs(**values)
