"""Translate compressed-tensors' QuantizationArgs in a recipe into those of presswork's schemes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stages.recipes.document import join
from stages.recipes.findings import Findings, shown

KNOWN = (
    "num_bits",
    "type",
    "symmetric",
    "group_size",
    "strategy",
    "block_structure",
    "dynamic",
    "actorder",
    "scale_dtype",
    "zp_dtype",
    "observer",
    "observer_kwargs",
)
PLAIN = ("num_bits", "type", "symmetric", "dynamic")
GROUPED = ("group", "tensor_group")
WEIGHT_OBSERVERS = {
    "minmax": "minmax",
    "memoryless_minmax": "minmax",
    "static_minmax": "minmax",
    "mse": "mse",
    "memoryless_mse": "mse",
    "imatrix_mse": "imatrix",
    "nvfp4_expanded_mse": "nvfp4_expanded_mse",
    "fouroversix": "nvfp4_expanded_mse",
    "nvfp4_expanded_imatrix": "nvfp4_expanded_imatrix",
}
"""llm-compressor's observers of weights -> presswork's; a weight is observed once, so observers
with and without memory are equal."""

INPUT_OBSERVERS = ("static_minmax", "minmax", "memoryless_minmax", "mse")
DEFAULT_INPUT = "minmax"
"""llm-compressor's observer of calibrated inputs if a recipe names none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Quantization args of a weight for a `scheme`, and options for the solver.

    `observer` is presswork's name; `actorder` is the recipe's value, None if it has none.
    """

    args: dict[str, Any]
    observer: str
    actorder: str | None


def weights(path: str, value: Any, override: str | None, findings: Findings) -> Weights:
    """Quantization args of a weight; `override` is the observer that the modifier names."""
    given = findings.mapping(path, value)
    name = override or given.get("observer") or "memoryless_minmax"
    observer = WEIGHT_OBSERVERS.get(name) if isinstance(name, str) else None
    if observer is None:
        known = ", ".join(WEIGHT_OBSERVERS)
        findings.cannot(join(path, "observer"), f"{shown(name)} is not had; known are {known}")
    if given.get("observer_kwargs"):
        findings.cannot(
            join(path, "observer_kwargs"), "the observers of weights have no options here"
        )
    actorder = given.get("actorder")
    return Weights(
        args=_args(path, given, findings),
        observer=observer or "minmax",
        actorder=None if actorder is None else str(actorder),
    )


def inputs(path: str, value: Any, override: str | None, findings: Findings) -> dict[str, Any]:
    """Quantization args of an input, with its observer if it is calibrated."""
    given = findings.mapping(path, value)
    args = _args(path, given, findings)
    if given.get("actorder") is not None:
        findings.cannot(join(path, "actorder"), "inputs have no order of columns")
    if args.get("dynamic", False) is True:
        return args
    name = override or given.get("observer") or DEFAULT_INPUT
    if name not in INPUT_OBSERVERS:
        known = ", ".join(INPUT_OBSERVERS)
        findings.cannot(join(path, "observer"), f"{shown(name)} is not had; known are {known}")
    elif args.get("strategy") == "tensor_group" and name != "static_minmax":
        findings.cannot(
            join(path, "observer"),
            f"global scales of inputs are observed by static_minmax only, not {name}",
        )
    args["observer"] = name
    if given.get("observer_kwargs"):
        args["observer_kwargs"] = given["observer_kwargs"]
    return args


def states(path: str, value: Any, findings: Findings) -> dict[str, Any]:
    """Quantization args of keys and values in the KV cache, or of all attention states."""
    given = findings.mapping(path, value)
    observer = given.get("observer")
    if observer not in (None, "static_minmax"):
        findings.cannot(
            join(path, "observer"),
            f"{shown(observer)} is not had for attention, static_minmax is: leave it out",
        )
    if given.get("observer_kwargs"):
        findings.cannot(
            join(path, "observer_kwargs"), "observers of attention have no options here"
        )
    return _args(path, given, findings)


def _args(path: str, given: dict[str, Any], findings: Findings) -> dict[str, Any]:
    """The args that all tensors have; the config's schema checks the values later."""
    findings.unknown(path, given, KNOWN)
    args = {name: given[name] for name in PLAIN if given.get(name) is not None}
    size = given.get("group_size")
    strategy = given.get("strategy") or _inferred(size)
    args["strategy"] = strategy
    if strategy in GROUPED:
        args["group_size"] = size
    elif size not in (None, -1, 0):
        findings.cannot(join(path, "group_size"), f"{shown(size)} with strategy {strategy!r}")
    block = given.get("block_structure")
    if isinstance(block, str) and re.fullmatch(r"\d{1,9}x\d{1,9}", block):
        block = [int(side) for side in block.split("x")]
    if block is not None:
        args["block_structure"] = block
    for name in ("scale_dtype", "zp_dtype"):
        if given.get(name) is not None:
            args[name] = str(given[name]).removeprefix("torch.")
    return args


def _inferred(size: Any) -> str:
    """The strategy that compressed-tensors infers if none is given."""
    if size is None:
        return "tensor"
    return "channel" if size == -1 else "group"
