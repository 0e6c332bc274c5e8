"""What compressed-tensors holds of a config, in full, at both ends of its range.

`model_dump` of 0.20 leaves out what is unset; 0.19 has every field. Nothing is left out here, so
that one comparison serves both: a field is dumped, or taken from the object as 0.19 would dump it.
"""

from __future__ import annotations

from typing import Any

from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, QuantizationScheme

NEWER = {"moe_sparsity_config"}
"""Fields that 0.19 does not have and 0.20 leaves unset."""
ARGS = ("weights", "input_activations", "output_activations")


def dump_args(args: QuantizationArgs) -> dict[str, Any]:
    dumped = args.model_dump(mode="json")
    return {
        name: dumped[name] if name in dumped else _unset(args, name)
        for name in type(args).model_fields
    }


def dump_scheme(scheme: QuantizationScheme) -> dict[str, Any]:
    found = {name: getattr(scheme, name) for name in ARGS}
    full = {name: None if args is None else dump_args(args) for name, args in found.items()}
    return scheme.model_dump(mode="json") | full


def dump_config(config: QuantizationConfig) -> dict[str, Any]:
    dumped = {k: v for k, v in config.model_dump(mode="json").items() if k not in NEWER}
    assert not [name for name in NEWER if getattr(config, name, None) is not None]
    dumped["config_groups"] = {k: dump_scheme(v) for k, v in config.config_groups.items()}
    if config.kv_cache_scheme is not None:
        dumped["kv_cache_scheme"] = dump_args(config.kv_cache_scheme)
    return dumped


def _unset(args: QuantizationArgs, name: str) -> Any:
    value = getattr(args, name)
    if name == "zp_dtype":
        return None if args.symmetric else str(value)
    return value
