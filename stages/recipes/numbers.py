"""The number format of one tensor: compressed-tensors' QuantizationArgs as our config says them."""

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
"""llm-compressor's observers of weights, the same as ours under other names; a weight is seen
once, so those that remember equal those that do not."""

INPUT_OBSERVERS = ("static_minmax", "minmax", "memoryless_minmax", "mse")
DEFAULT_INPUT = "minmax"
"""What llm-compressor observes calibrated inputs with where a recipe names no observer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A weight's format as a `scheme` says it, and what the solver has to know.

    `observer` is ours; `actorder` is the recipe's own word, None where it says nothing.
    """

    args: dict[str, Any]
    observer: str
    actorder: str | None


def weights(path: str, value: Any, override: str | None, found: Findings) -> Weights:
    """A weight's format; `override` is the observer that the modifier asks for."""
    given = found.mapping(path, value)
    name = override or given.get("observer") or "memoryless_minmax"
    observer = WEIGHT_OBSERVERS.get(name) if isinstance(name, str) else None
    if observer is None:
        known = ", ".join(WEIGHT_OBSERVERS)
        found.cannot(join(path, "observer"), f"{shown(name)} is not had; known are {known}")
    if given.get("observer_kwargs"):
        found.cannot(join(path, "observer_kwargs"), "the observers of weights have no options here")
    actorder = given.get("actorder")
    return Weights(
        args=_args(path, given, found),
        observer=observer or "minmax",
        actorder=None if actorder is None else str(actorder),
    )


def inputs(path: str, value: Any, override: str | None, found: Findings) -> dict[str, Any]:
    """An input's format, with its observer where it is calibrated."""
    given = found.mapping(path, value)
    args = _args(path, given, found)
    if given.get("actorder") is not None:
        found.cannot(join(path, "actorder"), "inputs have no order of columns")
    if args.get("dynamic", False) is True:
        return args
    name = override or given.get("observer") or DEFAULT_INPUT
    if name not in INPUT_OBSERVERS:
        known = ", ".join(INPUT_OBSERVERS)
        found.cannot(join(path, "observer"), f"{shown(name)} is not had; known are {known}")
    elif args.get("strategy") == "tensor_group" and name != "static_minmax":
        found.cannot(
            join(path, "observer"),
            f"global scales of inputs are observed by static_minmax only, not {name}",
        )
    args["observer"] = name
    if given.get("observer_kwargs"):
        args["observer_kwargs"] = given["observer_kwargs"]
    return args


def states(path: str, value: Any, found: Findings) -> dict[str, Any]:
    """The format of keys and values in the cache, or of what attention is given."""
    given = found.mapping(path, value)
    observer = given.get("observer")
    if observer not in (None, "static_minmax"):
        found.cannot(
            join(path, "observer"),
            f"{shown(observer)} is not had for attention, static_minmax is: leave it out",
        )
    if given.get("observer_kwargs"):
        found.cannot(join(path, "observer_kwargs"), "observers of attention have no options here")
    return _args(path, given, found)


def _args(path: str, given: dict[str, Any], found: Findings) -> dict[str, Any]:
    """What is the same for all tensors; values are checked by the config's schema later."""
    found.unknown(path, given, KNOWN)
    args = {name: given[name] for name in PLAIN if given.get(name) is not None}
    size = given.get("group_size")
    strategy = given.get("strategy") or _inferred(size)
    args["strategy"] = strategy
    if strategy in GROUPED:
        args["group_size"] = size
    elif size not in (None, -1, 0):
        found.cannot(join(path, "group_size"), f"{shown(size)} with strategy {strategy!r}")
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
    """The strategy that compressed-tensors takes where none is given."""
    if size is None:
        return "tensor"
    return "channel" if size == -1 else "group"
