"""Protocols of quantization args and schemes, ours or compressed-tensors'; scale granularity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class WeightFormat(Protocol):
    """Quantization args of a weight: our QArgs or Grid, or compressed-tensors' QuantizationArgs."""

    @property
    def num_bits(self) -> int: ...

    @property
    def type(self) -> Any: ...

    @property
    def symmetric(self) -> bool: ...

    @property
    def strategy(self) -> Any: ...

    @property
    def group_size(self) -> int | None: ...

    @property
    def block_structure(self) -> Sequence[int] | None: ...

    @property
    def scale_dtype(self) -> Any: ...

    @property
    def zp_dtype(self) -> Any: ...


class InputFormat(Protocol):
    """Quantization args of an input: our `QArgs`, or compressed-tensors' QuantizationArgs."""

    @property
    def dynamic(self) -> Any: ...

    @property
    def symmetric(self) -> bool: ...


class ModuleFormat(Protocol):
    """Scheme of a module: our `SchemeGroup`, or compressed-tensors' QuantizationScheme."""

    @property
    def weights(self) -> WeightFormat | None: ...

    @property
    def input_activations(self) -> InputFormat | None: ...

    @property
    def format(self) -> Any: ...

    @property
    def targets(self) -> Sequence[str]: ...


def spans(args: WeightFormat, rows: int, columns: int) -> tuple[int, int]:
    """Number of neighbouring rows and of neighbouring columns that share a scale."""
    if args.strategy == "tensor":
        return rows, columns
    if args.block_structure is not None:
        return args.block_structure[0], args.block_structure[1]
    return 1, args.group_size if args.group_size and args.group_size > 0 else columns


def scale_shape(args: WeightFormat, rows: int, columns: int) -> tuple[int, ...]:
    """Shape of `weight_scale` for a weight [rows, columns]; whole groups only."""
    if args.strategy == "tensor":
        return (1,)
    height, width = spans(args, rows, columns)
    if args.block_structure is not None:
        return (-(-rows // height), -(-columns // width))
    return (rows, columns // width if columns else 1)
