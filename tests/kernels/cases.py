"""Weights and formats on which all kinds of loops must agree, and what switches between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from torch import Tensor

from stages.compress.grid import Grid, Quantized, grid_of
from stages.compute import loops
from stages.compute.loops import Loops
from tests.stages.compress.solvers.reference import int4

T = TypeVar("T")


def fp8(**given: object) -> QuantizationArgs:
    return QuantizationArgs(num_bits=8, type="float", **given)


FORMATS = {
    "int4 g32": int4(),
    "int4 g32 asymmetric": int4(symmetric=False),
    "int3 g96": int4(96, bits=3),
    "int4 channel": int4(None),
    "int8 channel": int4(None, bits=8),
    "int8 tensor": QuantizationArgs(num_bits=8, strategy="tensor"),
    "fp8 channel": fp8(strategy="channel"),
    "fp8 tensor": fp8(strategy="tensor"),
    "fp8 block": fp8(strategy="block", block_structure=[16, 32]),
    "nvfp4": QuantizationArgs(
        num_bits=4,
        type="float",
        strategy="tensor_group",
        group_size=16,
        scale_dtype=torch.float8_e4m3fn,
        zp_dtype=torch.float8_e4m3fn,
    ),
    "mxfp4": QuantizationArgs(
        num_bits=4,
        type="float",
        strategy="group",
        group_size=32,
        scale_dtype=torch.uint8,
        zp_dtype=torch.uint8,
    ),
    "mxfp8": fp8(strategy="group", group_size=32, scale_dtype=torch.uint8, zp_dtype=torch.uint8),
}


def grid(name: str, dtype: torch.dtype = torch.bfloat16) -> Grid:
    """The grid of a format; "signed" behind its name: with scales of either sign."""
    made = grid_of(FORMATS[name.removesuffix(" signed")], dtype)
    return made.signed() if name.endswith(" signed") else made


@contextmanager
def running(which: Loops) -> Iterator[None]:
    """Context in which all tensors, which lie on a CPU, are worked on by these loops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "loops_for", lambda tensor: which)
        yield


def by(which: Loops, work: Callable[[], T]) -> T:
    with running(which):
        return work()


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, the signs of zeros as well."""
    return one.dtype == other.dtype and torch.equal(bits(one), bits(other))


def bits(x: Tensor) -> Tensor:
    return x.contiguous().view({1: torch.int8, 2: torch.int16, 4: torch.int32}[x.element_size()])


def assert_same(one: Quantized, other: Quantized) -> None:
    """The same codes and scales; losses are sums, and may be taken in another order."""
    assert torch.equal(one.scale.float(), other.scale.float())
    assert torch.equal(one.weight, other.weight)
    assert one.codes is not None and other.codes is not None
    assert torch.equal(one.codes.float(), other.codes.float())
    assert (one.zero_point is None) == (other.zero_point is None)
    if one.zero_point is not None and other.zero_point is not None:
        assert torch.equal(one.zero_point, other.zero_point)
    if one.losses is not None and other.losses is not None:
        torch.testing.assert_close(one.losses, other.losses, rtol=1e-4, atol=1e-6)
