"""Codes of a quantized weight as a tensor: their dtypes, and the numbers that they stand for.

A code is chosen once, by a solver, and what is stored is made of it: the code and not the weight is
handed on, so that nobody has to divide by a scale again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stages.schemes.protocols import WeightFormat

E2M1 = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0], dtype=np.float32)
BOTH = np.concatenate([E2M1, -E2M1])
"""Values of the 16 codes of E2M1: the sign is the highest bit."""


def code_dtype(args: WeightFormat) -> torch.dtype:
    """The dtype of a weight's codes: int8 for integers of up to 8 bits, float8_e4m3fn for E4M3.

    uint8 for E2M1, whose codes are 0 to 15: a bit for the sign and three for the magnitude. E2M3
    (FP6) has float8_e4m3fn as well: each of its numbers is one of E4M3, of the same value.
    """
    if args.type == "int":
        return torch.int8
    return torch.uint8 if args.num_bits == 4 else torch.float8_e4m3fn


def encode(values: Tensor, args: WeightFormat, *, signed_zero: bool = False) -> Tensor:
    """The codes that stand for `values`, which are numbers of the format exactly; any shape.

    The sign of a zero is kept in E4M3, and in E2M1 only if `signed_zero` says so. What is not
    finite has no code, and gets an arbitrary one among the integers.
    """
    dtype = code_dtype(args)
    if dtype == torch.int8:
        return values.to(torch.int8)
    if dtype == torch.float8_e4m3fn:
        return values if values.dtype == dtype else to_e4m3(values)
    double = values.abs().mul(2).to(torch.uint8)  # 0, 1, 2, 3, 4, 6, 8 or 12
    above = (double > 4).to(torch.uint8) + (double > 6) + (double > 8)
    sign = torch.signbit(values) if signed_zero else values < 0
    return double.clamp(max=4) + above + sign.to(torch.uint8) * 8


def decode(codes: Tensor) -> Tensor:
    """The float32 numbers that codes stand for, of any shape; E2M1 has a zero of either sign."""
    if codes.dtype != torch.uint8:
        return codes.float()
    values = torch.from_numpy(BOTH).to(codes.device)
    return values.index_select(0, codes.flatten().int()).view(codes.shape)


def to_e4m3(values: Tensor) -> Tensor:
    """The nearest E4M3 number to every entry, ties to even; what lies beyond 448 becomes 448.

    A cast alone makes NaN of it, or 448, by torch's version.
    """
    return values.clamp(-448.0, 448.0).to(torch.float8_e4m3fn)


def e8m0_of(scale: Tensor) -> Tensor:
    """Exponents of scales > 0, rounded down, with a bias of 127: uint8 (OCP MX, section 5.4.1)."""
    return (torch.frexp(scale.float()).exponent + 126).to(torch.uint8)
